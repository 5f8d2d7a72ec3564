"""Figures of a load test: the objective, goodput, the error budget, the knee."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.samples import Objective, Sample, Step, budget_used, goodput, knee, spread, summary
from loadtests.stack import grpc_address, http_address

OBJECTIVE = Objective(first_s=1.0, token_s=0.1, total_s=5.0, share=0.9)
GOOD = Sample("vqa", "rest", 0.0, 0.0, 0.5, 2.0, tokens=10, token_s=0.05)


def changed(**fields: object) -> Sample:
    return Sample(**{**GOOD.__dict__, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [{"code": "overloaded"}, {"first_s": 1.1}, {"token_s": 0.2}, {"total_s": 5.1}],
    ids=["failed", "slow to begin", "slow between tokens", "slow to end"],
)
def test_an_answer_that_misses_any_part_of_the_objective_is_not_good(fields: dict[str, object]) -> None:
    assert OBJECTIVE.met(GOOD)
    assert not OBJECTIVE.met(changed(**fields))


def test_a_drawing_has_no_first_text_to_be_late() -> None:
    assert OBJECTIVE.met(changed(first_s=4.0, tokens=0, token_s=None))


def test_a_request_that_failed_counts_against_goodput_and_the_budget() -> None:
    samples = [GOOD] * 19 + [changed(code="unavailable")]
    assert goodput(samples, OBJECTIVE) == 0.95
    assert budget_used(samples, OBJECTIVE) == pytest.approx(0.5)
    assert budget_used([GOOD, changed(code="unavailable")], Objective(share=1.0)) == 1.0


@given(st.lists(st.floats(0, 100), min_size=1), st.lists(st.booleans(), min_size=1, max_size=50))
def test_goodput_falls_and_the_budget_is_used_up_together(totals: list[float], failed: list[bool]) -> None:
    samples = [changed(total_s=total) for total in totals]
    samples += [changed(code="unavailable" if bad else "ok") for bad in failed]
    share, used = goodput(samples, OBJECTIVE), budget_used(samples, OBJECTIVE)
    assert 0 <= share <= 1
    assert used == pytest.approx((1 - share) / (1 - OBJECTIVE.share))


def test_the_report_has_failures_by_code_and_latencies_of_answers_alone() -> None:
    samples = [GOOD, changed(kind="chat", code="overloaded", total_s=60.0), changed(protocol="grpc")]
    report = summary(samples, OBJECTIVE, 10.0)
    assert report["all"]["due"] == 3
    assert report["all"]["failed"] == {"overloaded": 1}
    assert report["all"]["total_s"] == {"p50": 2.0, "p90": 2.0, "p99": 2.0}
    assert report["kinds"]["chat"]["total_s"] is None
    assert report["all"]["goodput_per_s"] == pytest.approx(0.2)
    assert set(report["protocols"]) == {"rest", "grpc"}


def test_nothing_has_no_percentiles() -> None:
    assert spread([None, None]) is None


def test_the_knee_is_the_last_rate_before_the_first_bad_one() -> None:
    steps = [Step(4, 0.5), Step(1, 1.0), Step(2, 0.96), Step(8, 0.99)]
    assert knee(steps) == Step(2, 0.96)
    assert knee([Step(1, 0.2)]) is None


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 1)), max_size=12, unique_by=lambda pair: pair[0]))
def test_all_steps_up_to_the_knee_are_good(pairs: list[tuple[float, float]]) -> None:
    steps = [Step(*pair) for pair in pairs]
    found = knee(steps)
    limit = found.rate if found else 0.0
    assert all(step.goodput >= 0.95 for step in steps if step.rate <= limit)
    above = [step for step in steps if step.rate > limit]
    assert not above or min(above, key=lambda step: step.rate).goodput < 0.95


@pytest.mark.parametrize("host", ["10.0.0.5", "example.org", "0.0.0.0", "127.0.0.1.example.org"])
def test_load_goes_to_loopback_alone(host: str) -> None:
    for convert, value in ((http_address, f"http://{host}:8000"), (grpc_address, f"{host}:9000")):
        with pytest.raises(argparse.ArgumentTypeError, match="loopback"):
            convert(value)


def test_loopback_is_taken() -> None:
    assert http_address("http://127.0.0.1:8000/") == "http://127.0.0.1:8000"
    assert http_address("http://[::1]:8000") == "http://[::1]:8000"
    assert grpc_address("localhost:9000") == "localhost:9000"
