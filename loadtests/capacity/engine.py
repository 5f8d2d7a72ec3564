"""One replica of the language model in simulated time: continuous batching, as `services.llm` does it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import simpy

from loadtests.capacity.cores import Cores
from loadtests.capacity.device import Device, Work


@dataclass
class Sequence:
    """An answer in the making.

    Attributes:
        stretches: (steps, rows) still to be run: a picture takes more rows than text.
        done: ends when the last step has.
        first_s: when the first token was drawn.
    """

    prompt_tokens: int
    stretches: list[tuple[int, int]]
    done: simpy.Event
    first_s: float | None = None

    @classmethod
    def of(cls, work: Work, device: Device, env: simpy.Environment) -> Sequence:
        """Text comes before and after each picture, in equal parts."""
        text = [(max(1, work.text_tokens // (work.pictures + 1)), 1)] if work.text_tokens else []
        picture = (device.picture_tokens, device.picture_rows)
        stretches = [*text]
        for _ in range(work.pictures):
            stretches += [picture, *text]
        return cls(work.prompt_tokens, stretches or [(1, 1)], env.event())

    @property
    def rows(self) -> int:
        return self.stretches[0][1]

    @property
    def reserved(self) -> int:
        """Rows for which there must be room."""
        return max(rows for _, rows in self.stretches)

    def advance(self, steps: int) -> bool:
        """Whether it ended."""
        left, rows = self.stretches[0]
        if left > steps:
            self.stretches[0] = (left - steps, rows)
            return False
        self.stretches.pop(0)
        return not self.stretches


@dataclass
class Engine:
    """Runs steps while there is a sequence; those that come meanwhile are admitted before the next step.

    Attributes:
        cores: shared with the other services, all of which a step uses; None = its own.
        leaving: takes no more and ends when it is empty.
    """

    env: simpy.Environment
    device: Device
    cores: Cores | None = None
    leaving: bool = False
    busy_s: float = 0.0
    _waiting: deque[Sequence] = field(default_factory=deque)
    _running: list[Sequence] = field(default_factory=list)
    _called: simpy.Event = field(init=False)

    def __post_init__(self) -> None:
        self._called = self.env.event()
        self.env.process(self._run())

    @property
    def ongoing(self) -> int:
        return len(self._waiting) + len(self._running)

    def submit(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)
        if not self._called.triggered:
            self._called.succeed()

    def _admit(self) -> list[Sequence]:
        room = self.device.max_batch - sum(sequence.reserved for sequence in self._running)
        new = []
        while self._waiting and (self._waiting[0].reserved <= room or not (self._running or new)):
            sequence = self._waiting.popleft()
            room -= sequence.reserved
            new.append(sequence)
        self._running += new
        return new

    def _run(self) -> Iterator[Any]:
        while True:
            self._called = self.env.event()
            new = self._admit()
            if not self._running:
                yield self._called
                continue
            step = self.device.step_s(sum(sequence.rows for sequence in self._running))
            yield from self._steps(step, new)

    def _compute(self, seconds: float) -> Iterator[Any]:
        if self.cores is None:
            yield self.env.timeout(seconds)
        else:
            yield from self.cores.together(seconds)

    def _steps(self, step: float, new: list[Sequence]) -> Iterator[Any]:
        """As many steps as nothing changes in: to the end of a stretch, or to the next that comes."""
        begun = self.env.now
        if new:
            read = sum(sequence.prompt_tokens for sequence in new)
            yield from self._compute(step + read * self.device.prefill_token_s)
            done = 1
        elif self.cores is not None:
            yield from self._compute(step)
            done = 1
        else:
            most = min(sequence.stretches[0][0] for sequence in self._running)
            yield self.env.timeout(most * step) | self._called
            # A step that has begun is ended; without steps that take time, all are done.
            done = min(most, max(1, math.ceil((self.env.now - begun) / step - 1e-9))) if step else most
            yield self.env.timeout(max(0.0, begun + done * step - self.env.now))
        self.busy_s += self.env.now - begun
        for sequence in self._running:
            sequence.first_s = self.env.now if sequence.first_s is None else sequence.first_s
        ended = [sequence for sequence in self._running if sequence.advance(done)]
        self._running = [sequence for sequence in self._running if sequence not in ended]
        for sequence in ended:
            sequence.done.succeed()
