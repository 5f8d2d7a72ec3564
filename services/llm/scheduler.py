"""The step: who runs, what is read, what each draws next, who is done.

    waiting ──admit──► active ──finish / fail──► gone
       ▲                  │
       └────preempt───────┘   when blocks run out: the last in rank goes back and is read again later

Rows are reserved for every guidance companion that a sequence may need; blocks are taken as they fill. The first in
rank never gives way, and the cache holds at least one sequence of any kind, so that what was admitted finishes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from services.errors import Cancelled, DeadlineExceeded, MedMaxError
from services.llm.answers import Answers
from services.llm.batch import Batch
from services.llm.compute import Work
from services.llm.decoding import Decoding
from services.llm.kv_cache import BLOCK
from services.llm.plan import Plan
from services.llm.running import Running
from services.llm.sequence import Phase, Row, Sequence
from services.llm.validation import Limits
from services.llm.waiting import WaitingLine

Compute = Callable[[Work], tuple[torch.Tensor | None, torch.Tensor | None]]
"""Runs one step on every rank; see `Computer`."""


class Scheduler:
    """Decides who runs; only the engine's thread calls `step`.

    Attributes:
        running: the sequences that hold rows.
        answers: what becomes of what they draw.
    """

    def __init__(
        self,
        batch: Batch,
        decoding: Decoding,
        compute: Compute,
        limits: Limits,
        waiting: WaitingLine,
        lock: threading.Condition,
        chunk: int,
    ) -> None:
        """
        Args:
            lock: guards `waiting`, which callers' threads fill, and the passage from there to `active`.
            chunk: prompt tokens that one step reads at most; running answers wait meanwhile.
        """
        self._batch, self._decoding, self._compute, self._limits = batch, decoding, compute, limits
        self._waiting, self._lock, self._chunk = waiting, lock, chunk
        self.running = Running(batch, limits)
        self.answers = Answers(batch, self.running, limits)
        self._plan: Plan | None = None
        self._planned = -1  # `running.changes` when the plan was made

    def step(self) -> None:
        """Drop the dead, admit the waiting, read, draw, and act on what was drawn."""
        self._drop_dead()
        for sequence in self.running.active:
            if sequence.needs_companions:
                self.running.fork(sequence)
        self._admit()
        places, counts = self._reading()
        if not len(places):
            return
        batch = self._batch
        behind = batch.read[places] + counts < batch.length[places] + batch.ahead[places]
        plan = self._plan_of(set(places[behind].tolist()))
        places, counts = places[counts > 0], counts[counts > 0]
        step = batch.step(places, counts)
        self.running.counts.steps += 1
        self.running.counts.read_tokens += len(step.ids)
        text, codes = self._compute(Work(step, *plan.wanted(batch.window)))
        for row in list(batch.filling):
            batch.register(row)
        drawn, settled = self._decoding.draw(plan, text, codes)
        if plan.text and drawn:
            self.answers.each(plan.text.sequences, lambda index, s: self.answers.on_text(s, drawn, index))
        if plan.codes:
            self.answers.each(plan.codes.sequences, lambda _, s: self.answers.on_code(s))
        if plan.drafted:
            self.running.counts.drafts_read += sum(one.width for one in settled)
            self.running.counts.drafts_kept += sum(one.codes - (one.codes < one.width) for one in settled)
            self._plan = None
            self.answers.each(
                plan.drafted.sequences, lambda index, s: self.answers.on_codes(s, settled[index].codes)
            )
        self.answers.each(plan.closing, lambda _, s: self.answers.on_closed(s))

    def _plan_of(self, behind: set[int]) -> Plan:
        """Who draws: every sequence none of whose rows is in `behind`, still being read after this step."""
        if behind:
            ready = [s for s in self.running.ranked() if not behind.intersection(row.index for row in s.rows)]
            return Plan.of(ready, self._batch)
        if self._plan is None or self._planned != self.running.changes:
            self._plan, self._planned = Plan.of(self.running.ranked(), self._batch), self.running.changes
        return self._plan

    def _reading(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All rows, first in rank first, and how many ids each reads in this step, [n]; makes room for them."""
        batch = self._batch
        while True:
            rows = [row for s in self.running.ranked() for row in s.rows]
            if not rows:
                return _NONE, _NONE
            places = np.array([row.index for row in rows], np.int64)
            if batch.window > 1:
                self._look_ahead()
            counts = batch.length[places] - batch.read[places]
            long = np.flatnonzero(counts > 1)
            if len(long):
                left = self._chunk
                for index in long.tolist():
                    counts[index] = min(int(counts[index]), left)
                    left -= int(counts[index])
            counts += batch.ahead[places]
            wanted = batch.read[places] + counts
            short = np.flatnonzero(-(-wanted // BLOCK) > batch.blocks[places])
            if all(self._grow(rows[index], int(wanted[index])) for index in short.tolist()):
                return places, counts

    def _look_ahead(self) -> None:
        """Let sequences within a picture read drafts of its next codes, once its first is drawn."""
        batch = self._batch
        for sequence in self.running.ranked():
            places = [row.index for row in sequence.rows]
            width = min(batch.window, sequence.codes_left)
            begun = sequence.codes_left < self._limits.codes_per_image
            even = bool((batch.length[places] - batch.read[places] == 1).all())
            if sequence.phase is Phase.CODES and begun and even and width > 1:
                if not sequence.drafting:
                    sequence.drafting = True
                    self._decoding.begin_drafts(sequence)
                batch.ahead[places] = width - 1
                self._plan = None
            else:
                batch.ahead[places] = 0

    def _grow(self, row: Row, tokens: int) -> bool:
        """Blocks for the row's first `tokens` positions; False where that cost somebody a place in the batch."""
        preempted = False
        while row.index >= 0 and not self._batch.grow(row, tokens):
            self._preempt(self.running.ranked()[-1])
            preempted = True
        return not preempted

    def _preempt(self, sequence: Sequence) -> None:
        """Back into the line with it, before its rows are gone: between the two it is never nowhere."""
        with self._lock:
            self._waiting.push_back(sequence)
        self.running.stash(sequence)

    def _drop_dead(self) -> None:
        now = time.monotonic()
        for sequence in [s for s in self.running.active if s.dead(now)]:
            self.answers.fail(sequence, _reason(sequence))
        if len(self._waiting):
            with self._lock:
                dead = self._waiting.remove_dead()
            for sequence in dead:
                self.answers.fail(sequence, _reason(sequence))

    def _admit(self) -> None:
        """Take in waiting sequences while rows and blocks are free, or are held by others of lower priority."""
        while True:
            with self._lock:
                first = self._waiting.first
                if first is None:
                    return
                room = self.running.has_room(first)
                if room:
                    if not self._prefix_is_there(first):
                        return
                    self.running.active.append(self._waiting.pop())
            if room:
                self.running.start(first)
            elif self.running.ranked()[-1].job.priority < first.job.priority:
                self._preempt(self.running.ranked()[-1])
            else:
                return

    def _prefix_is_there(self, sequence: Sequence) -> bool:
        """False while another sequence reads what this one's prompt goes on with: soon the cache has it."""
        if sequence.stashed:
            return True
        if sequence.keys is None:
            sequence.keys = self._batch.keys(sequence.job.prompt[:-1], sequence.job.adapter)
        missing = self._batch.pool.first_missing(sequence.keys)
        if missing is None:
            return True
        return not any(missing in row.keys[row.registered :] for row in self._batch.filling)


def _reason(sequence: Sequence) -> MedMaxError:
    if sequence.mailbox.cancelled:
        return Cancelled("the caller went away")
    return DeadlineExceeded("the request's time ran out", field="context.timeout_ms")


_NONE: NDArray[np.int64] = np.empty(0, np.int64)
