"""The search for the highest rate that meets an objective."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadtests.engine.search import Search


def run(search: Search, threshold: float) -> int:
    """Trials until done, where rates up to `threshold` meet."""
    trials = 0
    while not search.done:
        search.record(search.rate <= threshold)
        trials += 1
    return trials


@given(threshold=st.floats(0.01, 100), first=st.floats(0.1, 10))
def test_it_ends_close_below_the_threshold(threshold: float, first: float) -> None:
    search = Search(first, tolerance=0.1, trials=100)
    trials = run(search, threshold)
    assert threshold / 1.1 <= search.best * (1 + 1e-9)
    assert search.best <= threshold
    assert trials < 25


@given(threshold=st.floats(0.01, 100), trials=st.integers(1, 6))
def test_it_tries_no_more_often_than_it_may_and_never_claims_a_rate_that_missed(
    threshold: float, trials: int
) -> None:
    search = Search(1.0, trials=trials)
    assert run(search, threshold) <= trials
    assert search.best <= threshold


def test_where_no_rate_meets_the_best_is_none() -> None:
    search = Search(1.0, trials=5)
    run(search, 0.0)
    assert search.best == 0.0


def test_it_tells_whether_a_higher_rate_was_seen_to_miss() -> None:
    open_ended, closed = Search(1.0, trials=2), Search(1.0, trials=5)
    run(open_ended, 100.0)
    run(closed, 1.5)
    assert (open_ended.bounded, closed.bounded) == (False, True)
