"""Cohen's kappa: agreement of two raters beyond chance.

    κ = 1 − Σ w·observed / Σ w·expected,   w = [i ≠ j], |i − j| or (i − j)²

Sources: J. Cohen, Educ. Psychol. Meas. 20 (1960) 37–46; weights: Psychol. Bull. 70 (1968) 213–220.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import StrEnum
from typing import Any

import numpy as np


class Weights(StrEnum):
    """How much a disagreement counts: alike, by distance, by squared distance."""

    NONE = "none"
    LINEAR = "linear"
    QUADRATIC = "quadratic"


def cohen_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    categories: Sequence[Hashable] | None = None,
    weights: Weights = Weights.NONE,
) -> float | None:
    """κ of two raters' values for the same items; None where it is undefined: no items, or one category alone.

    Args:
        categories: all of them, in order; needed for weights unless values are numbers.

    Raises:
        ValueError: different lengths, or a value that is no category.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values; both raters judge the same items")
    if categories is None:
        found: set[Any] = set(first) | set(second)
        numbers = all(isinstance(value, int | float) for value in found)
        if weights is not Weights.NONE and not numbers:
            raise ValueError("categories: their order is needed for weights")
        categories = sorted(found, key=None if numbers else repr)
    index = {value: place for place, value in enumerate(categories)}
    if unknown := (set(first) | set(second)) - index.keys():
        raise ValueError(f"{len(unknown)} values are none of the {len(index)} categories")
    n = len(index)
    observed = np.zeros((n, n))
    for a, b in zip(first, second, strict=True):
        observed[index[a], index[b]] += 1
    if not len(first):
        return None
    observed /= len(first)
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n))).astype(np.float64)
    if weights is Weights.NONE:
        distance = (distance > 0).astype(np.float64)
    elif weights is Weights.QUADRATIC:
        distance **= 2
    expected = float((distance * np.outer(observed.sum(1), observed.sum(0))).sum())
    return None if expected == 0 else 1 - float((distance * observed).sum()) / expected
