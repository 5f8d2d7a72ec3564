"""What sampling leaves to choose from."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from services.llm.cpu.numbers import MATHS


@numba.njit(nogil=True, cache=True, fastmath=MATHS, error_model="numpy")
def _beyond(row: Any, bits: Any, limit: Any) -> Any:
    """Sum and number of the elements whose bits are more than `limit`."""
    mass, count = 0.0, 0
    for i in range(len(row)):
        if bits[i] > limit:
            mass += row[i]
            count += 1
    return mass, count


@numba.njit(nogil=True, cache=True, error_model="numpy")
def truncate(probabilities: Any, top_k: Any, top_p: Any) -> None:
    """Zero all but the `top_k` largest of each row, then all but its nucleus; of equals the first are kept.

    Instead of sorting, halves the range of values in which the smallest that is kept may lie: numbers that are not negative
    are ordered as their bits are.

    Args:
        probabilities: float64 [rows, choices], contiguous, not negative.
        top_k: int64 [rows]. top_p: float64 [rows]; the nucleus holds every choice before which less than top_p of the sum is gathered.
    """
    for r in range(len(probabilities)):
        row = probabilities[r]
        bits = row.view(np.int64)
        for by_mass in (False, True):
            if top_p[r] >= 1 if by_mass else top_k[r] >= len(row):
                continue
            wanted = top_p[r] * row.sum() if by_mass else float(top_k[r])
            low, high = np.int64(-1), np.int64(0)
            for i in range(len(row)):
                high = max(high, bits[i])
            while high - low > 1:
                middle = low + (high - low) // 2
                mass, count = _beyond(row, bits, middle)
                if (mass if by_mass else float(count)) < wanted:
                    high = middle
                else:
                    low = middle
            mass, count = _beyond(row, bits, high)
            gathered = mass if by_mass else float(count)
            for i in range(len(row)):
                if bits[i] == high and gathered < wanted:
                    gathered += row[i] if by_mass else 1.0
                elif bits[i] <= high:
                    row[i] = 0.0
