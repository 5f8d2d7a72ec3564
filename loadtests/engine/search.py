"""The highest rate that still meets an objective, by doubling and then bisection, in few trials."""

from __future__ import annotations

import math


class Search:
    """Ask `rate`, try it, `record` whether it met; until `done`. Rates are per second.

    Doubles (or halves) from the first rate until one meets and one does not, then halves the interval on a
    logarithmic scale until its ends differ by less than `tolerance`.

    Attributes:
        best: highest rate that met; 0 where none did.
    """

    def __init__(self, first: float, tolerance: float = 0.1, trials: int = 8) -> None:
        """trials: how many rates are tried at most."""
        self.rate, self.best = first, 0.0
        self._lowest_miss = math.inf
        self._tolerance, self._left = tolerance, trials

    @property
    def done(self) -> bool:
        return self._left <= 0 or self._lowest_miss <= self.best * (1 + self._tolerance)

    @property
    def bounded(self) -> bool:
        """Whether a higher rate than the best was tried."""
        return self._lowest_miss < math.inf

    def record(self, met: bool) -> None:
        """Whether the objective was met at `rate`; moves `rate` on."""
        self._left -= 1
        if met:
            self.best = max(self.best, self.rate)
        else:
            self._lowest_miss = min(self._lowest_miss, self.rate)
        if self._lowest_miss is math.inf:
            self.rate = self.best * 2
        elif self.best == 0:
            self.rate = self._lowest_miss / 2
        else:
            self.rate = math.sqrt(self.best * self._lowest_miss)
