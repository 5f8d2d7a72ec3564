"""Krippendorff's alpha: agreement of any number of raters beyond chance; values may be missing.

    α = 1 − D_o / D_e = 1 − (n − 1) Σ o_ck δ²(c, k) / Σ n_c n_k δ²(c, k)

o_ck counts pairs of values c, k within a unit of m values, each 1 / (m − 1); n_c is its row sum, n the total. δ² is
[c ≠ k] (nominal), (Σ_{g=c..k} n_g − (n_c + n_k)/2)² (ordinal), (c − k)² (interval), ((c − k)/(c + k))² (ratio).

Source: K. Krippendorff, Computing Krippendorff's Alpha-Reliability, University of Pennsylvania, 2011.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESAMPLES = 1000
MAX_VALUES = 200  # different ones; the coincidence matrix has their square


class Level(StrEnum):
    """Of measurement; nominal values may be anything hashable, the others are numbers (ratio: not negative)."""

    NOMINAL = "nominal"
    ORDINAL = "ordinal"
    INTERVAL = "interval"
    RATIO = "ratio"


@dataclass(frozen=True)
class Alpha:
    """
    Attributes:
        value: 1 = perfect, 0 = chance, below: systematic disagreement; None where it is undefined (no unit with two
            values, or one value alone throughout).
        ci95: percentiles of resampled units; None with fewer than two units, or where most resamples are undefined.
        units: those with two or more values, which alone count.
    """

    value: float | None
    ci95: tuple[float, float] | None
    units: int


def krippendorff_alpha(
    units: Sequence[Sequence[Any]], level: Level = Level.NOMINAL, *, resamples: int = RESAMPLES, seed: int = 0
) -> Alpha:
    """α of `units`: for each item the values that its raters gave, missing ones left out, in any order.

    Args:
        resamples: 0 = no interval.

    Raises:
        ValueError: more than MAX_VALUES different values, or one that its level does not allow.
    """
    pairable = [unit for unit in units if len(unit) >= 2]
    values = _values(pairable, level)
    if not pairable:
        return Alpha(None, None, 0)
    index = {value: place for place, value in enumerate(values)}
    counts = np.zeros((len(pairable), len(values)))
    for row, unit in enumerate(pairable):
        for value in unit:
            counts[row, index[value]] += 1
    size = counts.sum(1)
    scale = (
        np.asarray(values, dtype=np.float64) if level is not Level.NOMINAL else np.arange(float(len(values)))
    )
    # A unit adds n_c·n_k − [c = k]·n_c to o_ck, over m − 1; a resample is a weighted sum over units.
    shares = counts / (size - 1)[:, None]

    def of(times: Array) -> float | None:
        coincidences = (shares * times[:, None]).T @ counts - np.diag(times @ shares)
        return _alpha(coincidences, scale, level)

    value = of(np.ones(len(pairable)))
    interval = None
    if resamples and len(pairable) >= 2:
        rng = np.random.default_rng(seed)
        draws = rng.multinomial(len(pairable), np.full(len(pairable), 1 / len(pairable)), size=resamples)
        made = [one for times in draws if (one := of(times.astype(np.float64))) is not None]
        if len(made) > resamples / 2:
            low, high = np.percentile(made, (2.5, 97.5))
            interval = (float(low), float(high))
    return Alpha(value, interval, len(pairable))


def _values(units: Sequence[Sequence[Any]], level: Level) -> list[Any]:
    found: set[Hashable] = {value for unit in units for value in unit}
    if len(found) > MAX_VALUES:
        raise ValueError(f"{len(found)} different values; at most {MAX_VALUES}")
    if level is Level.NOMINAL:
        return sorted(found, key=repr)
    for value in found:
        if not isinstance(value, int | float) or not np.isfinite(value):
            raise ValueError(f"{level} values must be finite numbers")
        if level is Level.RATIO and value < 0:
            raise ValueError("ratio values must not be negative")
    return sorted(found)


def _alpha(coincidences: Array, scale: Array, level: Level) -> float | None:
    totals = coincidences.sum(1)
    distance = _distance(totals, scale, level)
    expected = float(totals @ distance @ totals)
    if expected <= 0:
        return None
    return 1 - (float(totals.sum()) - 1) * float((coincidences * distance).sum()) / expected


def _distance(totals: Array, scale: Array, level: Level) -> Array:
    """δ², [values, values]."""
    if level is Level.NOMINAL:
        return 1 - np.eye(len(scale))
    if level is Level.ORDINAL:
        middle = np.cumsum(totals) - totals / 2  # Σ_{g=c..k} n_g − (n_c + n_k)/2 is a difference of these
        return np.subtract.outer(middle, middle) ** 2
    difference = np.subtract.outer(scale, scale)
    if level is Level.RATIO:
        total = np.add.outer(scale, scale)
        difference = np.divide(difference, total, out=np.zeros_like(difference), where=total > 0)
    return difference**2
