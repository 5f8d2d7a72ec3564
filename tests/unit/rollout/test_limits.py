"""When measured requests are a reason to go back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidInput
from services.rollout.limits import Limits, lower_bound
from services.rollout.measured import Measured

LIMITS = Limits(min_requests=30)


def measured(ok: int, failed: int = 0, seconds: float = 0.05, code: str = "internal_error") -> Measured:
    bounds = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, math.inf)
    return Measured({"ok": ok, code: failed}, {bound: ok if seconds <= bound else 0 for bound in bounds})


def test_one_failure_of_thirty_is_chance() -> None:
    assert LIMITS.breach(measured(29, 1), None) == ""


def test_five_failures_of_thirty_are_not() -> None:
    assert LIMITS.breach(measured(25, 5), None).startswith("5 of 30 requests failed (16.7%)")


def test_too_few_requests_tell_nothing() -> None:
    assert LIMITS.breach(measured(0, 29), None) == ""


@pytest.mark.parametrize("code", ["invalid_input", "rate_limited", "cancelled", "unauthenticated"])
def test_faults_of_callers_are_none_of_the_models(code: str) -> None:
    assert LIMITS.breach(measured(10, 90, code=code), None) == ""


def test_more_failures_than_before_break_a_limit_that_the_absolute_one_allows() -> None:
    loose = Limits(max_error_ratio=0.5)
    assert loose.breach(measured(900, 100), measured(990, 10)).endswith(
        "1.0% before, and 1.0% more is the limit"
    )
    assert loose.breach(measured(985, 15), measured(990, 10)) == ""


def test_a_slow_first_token_breaks_the_limit() -> None:
    assert "the limit is 5 s" in LIMITS.breach(measured(100, seconds=8), None)
    assert "0.10 s before" in LIMITS.breach(measured(100, seconds=0.8), measured(100, seconds=0.08))
    assert LIMITS.breach(measured(100, seconds=0.08), measured(100, seconds=0.08)) == ""


def test_a_baseline_with_few_requests_is_no_measure() -> None:
    assert LIMITS.breach(measured(100, seconds=0.8), measured(5, seconds=0.08)) == ""


def test_the_percentile_is_prometheuss() -> None:
    found = Measured({}, {0.1: 50, 0.2: 90, 0.4: 100, math.inf: 100})
    assert found.first_token(0.95) == pytest.approx(0.3)
    assert found.first_token(0.5) == pytest.approx(0.1)
    assert Measured({}, {0.1: 0, math.inf: 10}).first_token(0.95) == 0.1
    assert Measured().first_token(0.95) is None


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_the_lower_bound_lies_below_the_share(count: int, total: int) -> None:
    count = min(count, total)
    assert 0 <= lower_bound(count, total) <= count / total + 1e-12


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_error_ratio", 1.5), ("ready_s", 0), ("undecided", "perhaps"), ("window_s", math.nan)],
)
def test_a_limit_out_of_its_range_is_named(name: str, value: object) -> None:
    with pytest.raises(InvalidInput) as raised:
        Limits.of(**{name: value})
    assert raised.value.field == name
