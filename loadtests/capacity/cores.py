"""Cores that everything on a machine shares, in simulated time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import simpy

SLICE_S = 0.003
"""After so long others that wait get the core, as Linux's scheduler does it (base_slice_ns)."""


@dataclass
class Cores:
    """Whoever works takes a core a slice at a time, in the order of asking: with more work than cores all go slower."""

    env: simpy.Environment
    count: int
    _cores: simpy.Resource = field(init=False)

    def __post_init__(self) -> None:
        self._cores = simpy.Resource(self.env, self.count)

    def work(self, seconds: float) -> Iterator[Any]:
        """So much work of one thread."""
        while seconds > 0:
            with self._cores.request() as core:
                yield core
                part = min(SLICE_S, seconds)
                yield self.env.timeout(part)
            seconds -= part

    def together(self, seconds: float) -> Iterator[Any]:
        """So much work of each of as many threads as there are cores; ends with the last."""
        yield self.env.all_of([self.env.process(self.work(seconds)) for _ in range(self.count)])
