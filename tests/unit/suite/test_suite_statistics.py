"""Errors, intervals, tests and calibration against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from evaluation.report.calibration import calibration
from evaluation.report.statistics import holm, mcnemar, mean, paired, stratified


def test_a_share_has_its_binomial_error_and_interval() -> None:
    values = [1.0] * 75 + [0.0] * 25
    found = mean(values)
    assert found.value == 0.75
    assert found.stderr == pytest.approx((0.75 * 0.25 / 99) ** 0.5)
    # A resampled mean of 0 and 1 is binomial, whose quantiles are known.
    low, high = (binom.ppf(q, 100, 0.75) / 100 for q in (0.025, 0.975))
    assert found.ci95 == (pytest.approx(low, abs=0.011), pytest.approx(high, abs=0.011))


def test_pairs_are_the_units_where_examples_belong_together() -> None:
    values, groups = [1.0, 1.0, 0.0, 0.0] * 10, [f"{i // 2}" for i in range(40)]
    alone, together = mean(values), mean(values, groups)
    assert together.value == alone.value == 0.5
    assert together.stderr == pytest.approx((0.25 / 19) ** 0.5)  # 20 pairs, not 40 answers
    assert alone.stderr == pytest.approx((0.25 / 39) ** 0.5)


def test_one_value_has_no_error() -> None:
    assert (mean([1.0]).stderr, mean([1.0]).ci95) == (None, None)
    with pytest.raises(ValueError, match="no values"):
        mean([])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30))
def test_an_interval_lies_within_the_values(values: list[float]) -> None:
    found = mean(values)
    assert found.ci95 is not None
    assert min(values) - 1e-9 <= found.ci95[0] <= found.ci95[1] <= max(values) + 1e-9


def test_an_average_over_tasks_weighs_them_evenly_and_resamples_each() -> None:
    big, small = [1.0] * 900 + [0.0] * 100, [0.0] * 9 + [1.0]
    found = stratified([(big, None), (small, None)])
    assert found.value == pytest.approx((0.9 + 0.1) / 2)
    assert found.stderr == pytest.approx((0.09 / 999 + 0.09 / 9) ** 0.5 / 2)


def test_mcnemar_is_the_exact_binomial_test_of_discordant_pairs() -> None:
    first, second = [1] * 8 + [0] * 2 + [1] * 5, [0] * 8 + [1] * 2 + [1] * 5
    lost, won, p = mcnemar(first, second)
    assert (lost, won) == (8, 2)
    assert p == pytest.approx(2 * binom.cdf(2, 10, 0.5))
    assert mcnemar([1, 0], [1, 0]) == (0, 0, 1.0)


def test_a_paired_difference_has_the_error_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(size=200)
    after = before + 0.1 + 0.01 * rng.standard_normal(200)
    found, p = paired(list(before), list(after))
    assert found.value == pytest.approx(0.1, abs=0.005)
    assert found.stderr is not None
    assert found.stderr < 0.001  # far less than either run's own error
    assert p < 0.01
    assert paired([0.5, 0.1], [0.5, 0.1])[1] == 1.0


def test_the_paired_bootstrap_seldom_finds_what_is_not_there() -> None:
    rng = np.random.default_rng(1)
    small = sum(
        paired(list(rng.standard_normal(40)), list(rng.standard_normal(40)))[1] < 0.05 for _ in range(200)
    )
    assert small <= 22  # 10 expected, and this is its 99.9 % point


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_calibration_of_known_confidences() -> None:
    # 75 right at 0.9, 25 wrong at 0.6.
    found = calibration([0.9] * 75 + [0.6] * 25, [1.0] * 75 + [0.0] * 25)
    assert found is not None
    assert found.ece == pytest.approx(0.75 * 0.1 + 0.25 * 0.6)
    assert found.brier == pytest.approx(0.75 * 0.01 + 0.25 * 0.36)
    assert found.coverage == (0.75, 1.0)
    assert found.risk == (0.0, 0.25)
    assert found.aurc == pytest.approx(0.25 * 0.25)
    assert found.risk_at_80 == 0.25
    assert calibration([], []) is None


def test_a_calibrated_model_has_little_error() -> None:
    rng = np.random.default_rng(2)
    sure = rng.uniform(size=20_000)
    found = calibration(list(sure), list((rng.uniform(size=20_000) < sure).astype(float)))
    assert found is not None
    assert found.ece < 0.02


def test_equal_confidences_enter_the_curve_together() -> None:
    found = calibration([0.5, 0.5, 0.5], [1, 0, 1])
    assert found is not None
    assert (found.coverage, found.risk) == ((1.0,), (pytest.approx(1 / 3),))
