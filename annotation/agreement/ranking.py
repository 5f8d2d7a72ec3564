"""Agreement of rankings: indices of alternatives, best first, all of them once, no ties.

    W = 12 S / (m² (n³ − n)),   S: squared deviations of the alternatives' rank sums, m rankings of n alternatives

Source: M. G. Kendall, B. Babington Smith, Ann. Math. Stat. 10 (1939) 275–287.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def ranks(rankings: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Place of each alternative in each ranking, from 0, int64 [rankings, alternatives].

    Raises:
        ValueError: they are no permutations of the same alternatives.
    """
    table = np.asarray([list(ranking) for ranking in rankings], dtype=np.int64)
    if table.ndim != 2 or not (np.sort(table, axis=1) == np.arange(table.shape[1])).all():
        raise ValueError("each ranking must name every alternative once")
    return np.argsort(table, axis=1).astype(np.int64)


def kendall_w(rankings: Sequence[Sequence[int]]) -> float | None:
    """Concordance of all rankings, 0 to 1; None with fewer than two rankings or alternatives."""
    if len(rankings) < 2 or len(rankings[0]) < 2:
        return None
    places = ranks(rankings)
    m, n = places.shape
    sums = places.sum(0)
    return float(12 * ((sums - sums.mean()) ** 2).sum() / (m**2 * (n**3 - n)))


def concordance(first: Sequence[int], second: Sequence[int]) -> float:
    """Share of pairs of alternatives in the same order in both, 0 to 1: (τ + 1) / 2. 1 where there is no pair."""
    a, b = ranks([first, second])
    left, right = np.triu_indices(len(a), 1)
    return float(((a[left] < a[right]) == (b[left] < b[right])).mean()) if len(left) else 1.0
