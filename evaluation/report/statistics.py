"""Means with standard errors and bootstrap intervals, and tests of paired differences.

Examples are the units; where examples belong together (pairs), their groups are. Intervals are percentiles of resamples,
drawn from a fixed seed, so that the same records give the same page. Averages over tasks resample within each task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_CHUNK = 4_000_000
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mean:
    """A mean of n values; error and interval are None where one value says nothing of them."""

    value: float
    n: int
    stderr: float | None
    ci95: tuple[float, float] | None


def units(values: Sequence[float], groups: Sequence[str] | None = None) -> tuple[Array, Array]:
    """Sums and sizes of the independent units: of each value, or of each group."""
    array = np.asarray(values, dtype=np.float64)
    if groups is None or not any(groups):
        return array, np.ones(len(array))
    names = [group or f"\0{index}" for index, group in enumerate(groups)]
    _, where = np.unique(names, return_inverse=True)
    return np.bincount(where, weights=array).astype(np.float64), np.bincount(where).astype(np.float64)


def resampled(sums: Array, sizes: Array, rng: np.random.Generator) -> Array:
    """Means of RESAMPLES draws of the units with replacement, float64 [RESAMPLES]."""
    n = len(sums)
    made = []
    step = max(1, min(RESAMPLES, _CHUNK // max(n, 1)))
    for start in range(0, RESAMPLES, step):
        drawn = rng.integers(n, size=(min(step, RESAMPLES - start), n))
        made.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    return np.concatenate(made)


def interval(draws: Array) -> tuple[float, float]:
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)


def stderr_of(sums: Array, sizes: Array) -> float | None:
    """Of the ratio Σsums / Σsizes, units being independent; for single values the usual s / √n with n − 1."""
    n = len(sums)
    if n < 2:
        return None
    share = sums.sum() / sizes.sum()
    spread = ((sums - share * sizes) ** 2).sum() / (n - 1)
    return float(np.sqrt(spread / n) / sizes.mean())


def mean(values: Sequence[float], groups: Sequence[str] | None = None, seed: int = 0) -> Mean:
    """Raises ValueError for no values."""
    if not len(values):
        raise ValueError("no values")
    sums, sizes = units(values, groups)
    value = float(sums.sum() / sizes.sum())
    if len(sums) < 2:
        return Mean(value, len(values), None, None)
    draws = resampled(sums, sizes, np.random.default_rng([seed, 1]))
    return Mean(value, len(values), stderr_of(sums, sizes), interval(draws))


def stratified(tasks: Sequence[tuple[Sequence[float], Sequence[str] | None]], seed: int = 0) -> Mean:
    """The mean of the tasks' means, each task resampled by itself."""
    rng = np.random.default_rng([seed, 2])
    made = [units(values, groups) for values, groups in tasks]
    value = float(np.mean([sums.sum() / sizes.sum() for sums, sizes in made]))
    count = sum(len(values) for values, _ in tasks)
    errors = [stderr_of(sums, sizes) for sums, sizes in made]
    if any(error is None for error in errors):
        return Mean(value, count, None, None)
    draws = np.mean([resampled(sums, sizes, rng) for sums, sizes in made], axis=0)
    total = float(np.sqrt(sum((error or 0.0) ** 2 for error in errors)) / len(errors))
    return Mean(value, count, total, interval(draws))


def mcnemar(first: Sequence[float], second: Sequence[float]) -> tuple[int, int, float]:
    """Pairs right in the first run alone, in the second alone, and the exact two-sided p value."""
    from scipy.stats import binomtest

    a, b = np.asarray(first) > 0.5, np.asarray(second) > 0.5
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    discordant = only_first + only_second
    p = binomtest(only_second, discordant, 0.5).pvalue if discordant else 1.0
    return only_first, only_second, float(p)


def paired(
    first: Sequence[float], second: Sequence[float], groups: Sequence[str] | None = None, seed: int = 0
) -> tuple[Mean, float]:
    """Mean of second − first with its interval, and the two-sided p value of the paired bootstrap."""
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    found = mean([float(value) for value in differences], groups, seed)
    sums, sizes = units([float(value) for value in differences], groups)
    if len(sums) < 2 or not differences.any():
        return found, 1.0
    draws = resampled(sums, sizes, np.random.default_rng([seed, 3]))
    # One more draw on either side: a p value from B resamples is never 0.
    below, above = ((draws <= 0).sum() + 1) / (RESAMPLES + 1), ((draws >= 0).sum() + 1) / (RESAMPLES + 1)
    return found, float(min(1.0, 2 * min(below, above)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment of p values, in their order."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[int(index)]))
        adjusted[int(index)] = running
    return adjusted
