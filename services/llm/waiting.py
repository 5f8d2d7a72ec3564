"""Sequences that wait for rows: by priority, then by arrival."""

from __future__ import annotations

import heapq
import itertools
import time

from services.errors import Overloaded
from services.llm.sequence import Sequence


class WaitingLine:
    """Not thread-safe: the engine's lock guards it."""

    def __init__(self, limit: int) -> None:
        """limit: sequences that may wait; -1 = any number."""
        self._limit = limit
        self._heap: list[tuple[int, int, Sequence]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, sequence: Sequence, *, bounded: bool = True) -> None:
        """Raises: Overloaded where `bounded` and the line is full."""
        if bounded and 0 <= self._limit <= len(self._heap):
            raise Overloaded(
                f"{self._limit} requests are waiting for the language model already", retry_after_s=1.0
            )
        heapq.heappush(self._heap, (-sequence.job.priority, next(self._numbers), sequence))

    @property
    def first(self) -> Sequence | None:
        return self._heap[0][2] if self._heap else None

    def pop(self) -> Sequence:
        return heapq.heappop(self._heap)[2]

    def remove_dead(self) -> list[Sequence]:
        """Take out and return the sequences that were cancelled or whose deadline has passed."""
        now = time.monotonic()
        dead = [entry[2] for entry in self._heap if entry[2].dead(now)]
        if dead:
            gone = set(map(id, dead))
            self._heap = [entry for entry in self._heap if id(entry[2]) not in gone]
            heapq.heapify(self._heap)
        return dead

    def clear(self) -> list[Sequence]:
        """Take out and return everything."""
        waiting = [entry[2] for entry in self._heap]
        self._heap = []
        return waiting
