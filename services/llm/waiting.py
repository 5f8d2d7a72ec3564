"""Sequences that wait for rows: by priority, then in fair shares between callers, then by arrival.

Start-time fair queueing: each sequence gets a virtual time at which its caller's turn comes, which moves on by the
work that the caller asked for. A caller with a thousand requests waiting delays another's one by a single request.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time

from services.errors import Overloaded
from services.llm.sequence import Sequence


class WaitingLine:
    """Not thread-safe: the engine's lock guards it."""

    def __init__(self, limit: int) -> None:
        """limit: sequences that may wait, preempted ones included; -1 = any number."""
        self._limit = limit
        self._heap: list[tuple[int, float, int, Sequence]] = []
        self._numbers = itertools.count()
        self._clock = 0.0
        self._turns: dict[str, float] = {}  # virtual time at which each caller's next turn comes

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, sequence: Sequence, *, bounded: bool = True) -> None:
        """Raises: Overloaded where `bounded` and the line is full."""
        if bounded and 0 <= self._limit <= len(self._heap):
            raise Overloaded(
                f"{self._limit} requests are waiting for the language model already", retry_after_s=1.0
            )
        job = sequence.job
        sequence.number = next(self._numbers)
        turn = max(self._clock, self._turns.get(job.caller, 0.0))
        self._turns[job.caller] = turn + job.limit * sequence.rows_needed
        heapq.heappush(self._heap, (-job.priority, turn, sequence.number, sequence))

    def push_back(self, sequence: Sequence) -> None:
        """A sequence that was running: before all others of its priority."""
        heapq.heappush(self._heap, (-sequence.job.priority, -math.inf, sequence.number, sequence))

    @property
    def first(self) -> Sequence | None:
        return self._heap[0][3] if self._heap else None

    def pop(self) -> Sequence:
        _, turn, _, sequence = heapq.heappop(self._heap)
        self._clock = max(self._clock, turn)
        if not self._heap:
            self._turns.clear()
        return sequence

    def remove_dead(self) -> list[Sequence]:
        """Take out and return the sequences that were cancelled or whose deadline has passed."""
        now = time.monotonic()
        dead = [entry[3] for entry in self._heap if entry[3].dead(now)]
        if dead:
            gone = set(map(id, dead))
            self._heap = [entry for entry in self._heap if id(entry[3]) not in gone]
            heapq.heapify(self._heap)
        return dead

    def clear(self) -> list[Sequence]:
        """Take out and return everything."""
        waiting = [entry[3] for entry in self._heap]
        self._heap = []
        return waiting
