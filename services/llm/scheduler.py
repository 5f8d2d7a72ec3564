"""The step: who runs, what is read, what each draws next, who is done.

    waiting ──admit──► active ──finish / fail──► gone
       ▲                  │
       └────preempt───────┘   when blocks run out: the last in rank goes back and is read again later

Rows are reserved for every guidance companion that a sequence may need; blocks are taken as they fill. The first in
rank never gives way, and the cache holds at least one sequence of any kind, so that what was admitted finishes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from services.errors import Cancelled, DeadlineExceeded, MedMaxError, internal_error
from services.llm.batch import Batch
from services.llm.blocks import prefix_keys
from services.llm.compute import Work
from services.llm.decoding import Decoding, Drawn
from services.llm.events import Confidence, Event, Finish, FinishReason, Picture, Preview
from services.llm.kv_cache import BLOCK, blocks_for
from services.llm.plan import Plan
from services.llm.request import OutputMode
from services.llm.sequence import Phase, Row, Sequence, Stashed, companion_prompts
from services.llm.stream import Mailbox
from services.llm.validation import Limits
from services.llm.waiting import WaitingLine

log = logging.getLogger(__name__)

Compute = Callable[[Work], tuple[torch.Tensor | None, torch.Tensor | None]]
"""Runs one step on every rank; see `Computer`."""


@dataclass
class Counts:
    """Totals since the engine's start."""

    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    read_tokens: int = 0
    text_tokens: int = 0
    code_tokens: int = 0
    pictures: int = 0
    finished: int = 0
    failed: int = 0
    preempted: int = 0
    drafts_read: int = 0
    drafts_kept: int = 0


class Scheduler:
    """Owns the running sequences and their rows; only the engine's thread calls `step`.

    Attributes:
        active: sequences that hold rows, in the order of their admission.
        news: mailboxes that got something since whoever rings them last cleared the set.
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
        self._vocabulary = limits.vocabulary
        self._waiting, self._lock, self._chunk = waiting, lock, chunk
        self.active: list[Sequence] = []
        self.news: set[Mailbox] = set()
        self.counts = Counts()
        self._reserved = 0
        self._order: list[Sequence] | None = None
        self._plan: Plan | None = None

    def step(self) -> None:
        """Drop the dead, admit the waiting, read, draw, and act on what was drawn."""
        self._drop_dead()
        for sequence in self.active:
            if sequence.needs_companions:
                self._fork(sequence)
        self._admit()
        places, counts = self._reading()
        if not len(places):
            return
        batch = self._batch
        behind = batch.read[places] + counts < batch.length[places] + batch.ahead[places]
        plan = self._plan_of(set(places[behind].tolist()))
        places, counts = places[counts > 0], counts[counts > 0]
        step = batch.step(places, counts)
        self.counts.steps += 1
        self.counts.read_tokens += len(step.ids)
        text, codes = self._compute(Work(step, *plan.wanted(batch.window)))
        for row in list(batch.filling):
            batch.register(row)
        drawn, settled = self._decoding.draw(plan, text, codes)
        if plan.text and drawn:
            self._each(plan.text.sequences, lambda index, s: self._on_text(s, drawn, index))
        if plan.codes:
            self._each(plan.codes.sequences, lambda _, s: self._on_code(s))
        if plan.drafted:
            self.counts.drafts_read += sum(one.width for one in settled)
            self.counts.drafts_kept += sum(one.codes - (one.codes < one.width) for one in settled)
            self._plan = None
            self._each(plan.drafted.sequences, lambda index, s: self._on_codes(s, settled[index].codes))
        self._each(plan.closing, lambda _, s: self._on_closed(s))

    def _plan_of(self, behind: set[int]) -> Plan:
        """Who draws: every sequence none of whose rows is in `behind`, still being read after this step."""
        if behind:
            ready = [s for s in self._ranked() if not behind.intersection(row.index for row in s.rows)]
            return Plan.of(ready, self._batch)
        if self._plan is None:
            self._plan = Plan.of(self._ranked(), self._batch)
        return self._plan

    def _ranked(self) -> list[Sequence]:
        if self._order is None:
            self._order = sorted(self.active, key=lambda s: s.rank)
        return self._order

    def _changed(self) -> None:
        """A sequence came, went or changed phase."""
        self._order = self._plan = None

    def _reading(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All rows, first in rank first, and how many ids each reads in this step, [n]; makes room for them."""
        batch = self._batch
        while True:
            rows = [row for s in self._ranked() for row in s.rows]
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
        for sequence in self._ranked():
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
            self._preempt(self._ranked()[-1])
            preempted = True
        return not preempted

    def _preempt(self, sequence: Sequence) -> None:
        """Take a sequence's rows and blocks away; it goes on from the same state when there is room."""
        self.counts.preempted += 1
        sequence.stashed = [
            Stashed(row, self._batch.ids(row).copy(), self._batch.state.save(row.index))
            for row in sequence.rows
        ]
        for row in sequence.rows:
            self._batch.remove(row)
        with self._lock:
            self.active.remove(sequence)
            self._waiting.push_back(sequence)
        self._reserved -= sequence.rows_needed
        self._changed()

    def _each(self, sequences: list[Sequence], act: Callable[[int, Sequence], None]) -> None:
        """Act on each sequence; what goes wrong with one ends that one."""
        for index, sequence in enumerate(sequences):
            try:
                act(index, sequence)
            except Exception:
                error = internal_error()
                log.exception("a sequence failed: %s", error.message)
                for row in sequence.rows:
                    if row.index >= 0:
                        self._batch.spoil(row)
                self._fail(sequence, error)

    def _drop_dead(self) -> None:
        now = time.monotonic()
        for sequence in [s for s in self.active if s.dead(now)]:
            self._fail(sequence, _reason(sequence))
        if len(self._waiting):
            with self._lock:
                dead = self._waiting.remove_dead()
            for sequence in dead:
                self._fail(sequence, _reason(sequence))

    def _admit(self) -> None:
        """Take in waiting sequences while rows and blocks are free, or are held by others of lower priority."""
        while True:
            with self._lock:
                first = self._waiting.first
                if first is None:
                    return
                room = self._has_room(first)
                if room:
                    if not self._prefix_is_there(first):
                        return
                    self.active.append(self._waiting.pop())
            if room:
                self._start(first)
            elif self._ranked()[-1].job.priority < first.job.priority:
                self._preempt(self._ranked()[-1])
            else:
                return

    def _has_room(self, sequence: Sequence) -> bool:
        """Whether rows are free, and blocks for what the sequence has to read at once and one for each running row."""
        if self._reserved + sequence.rows_needed > self._batch.capacity:
            return False
        if not self.active:
            return True
        ids = sum(len(part.ids) for part in sequence.stashed) or len(sequence.job.prompt)
        return blocks_for(ids + 1) + self._batch.rows <= self._batch.pool.available

    def _prefix_is_there(self, sequence: Sequence) -> bool:
        """False while another sequence reads what this one's prompt goes on with: soon the cache has it."""
        if sequence.stashed:
            return True
        if sequence.keys is None:
            sequence.keys = prefix_keys(sequence.job.prompt[:-1], BLOCK)
        missing = self._batch.pool.first_missing(sequence.keys)
        if missing is None:
            return True
        return not any(missing in row.keys[row.registered :] for row in self._batch.filling)

    def _start(self, sequence: Sequence) -> None:
        job, row, batch = sequence.job, sequence.row, self._batch
        self._reserved += sequence.rows_needed
        self._changed()
        if sequence.stashed:
            for part in sequence.stashed:
                batch.add(part.row, part.ids, saved=part.state)
            sequence.stashed = []
            return
        sequence.started = time.monotonic()
        sequence.cached = min(batch.add(row, job.prompt), job.prompt_tokens)
        self.counts.prompt_tokens += job.prompt_tokens
        self.counts.cached_tokens += sequence.cached
        # Philox: a counter-based generator, so that a seed means the same numbers on every machine.
        numbers = np.random.Generator(np.random.Philox(job.sampling.seed)).random(
            job.limit - job.prompt_tokens
        )
        batch.state.uniform[row.index, job.prompt_tokens : job.limit] = torch.from_numpy(numbers)
        if job.mode is OutputMode.IMAGE:
            sequence.begin_picture(self._limits.codes_per_image)
            self._fork(sequence)
        elif job.max_images:
            batch.state.image_limit[row.index] = job.limit - self._limits.span

    def _fork(self, sequence: Sequence) -> None:
        """Add the guidance companions of a sequence whose ids end in begin-of-image."""
        sequence.needs_companions = False
        self._changed()
        row = sequence.row
        prompts = companion_prompts(self._batch.ids(row), sequence.job.sampling, self._vocabulary)
        row.weight = 1.0 if not prompts else sequence.job.sampling.guidance_text
        for weight, prompt in prompts:
            companion = Row(sequence, weight)
            sequence.companions.append(companion)
            self._batch.add(companion, prompt)

    def _on_text(self, sequence: Sequence, drawn: Drawn, index: int) -> None:
        token, logprob = drawn.ids[index], drawn.logprobs[index]
        self._check_finite(logprob)
        sequence.first_token = sequence.first_token or time.monotonic()
        vocabulary = self._vocabulary
        if token == vocabulary.begin_image:
            self._post(sequence, sequence.text.flush())
            sequence.begin_picture(self._limits.codes_per_image)
            if sequence.images == sequence.job.max_images:
                self._batch.state.image_limit[sequence.row.index] = -1
            self._changed()
            return
        if token in (vocabulary.eos, vocabulary.end_of_turn):
            sequence.end_id = token
            self._finish(sequence, FinishReason.STOP)
            return
        self.counts.text_tokens += 1
        sequence.tally.add(logprob, drawn.entropies[index])
        asked = sequence.job.top_logprobs
        entry = None
        if asked is not None:
            entry = sequence.logprob(vocabulary, token, logprob, drawn.top[index][:asked])
        sequence.text.push(token, entry)
        if sequence.text.stopped:
            self._finish(sequence, FinishReason.STOP)
        elif self._done(sequence) >= sequence.job.limit:
            self._finish(sequence, FinishReason.LENGTH)
        else:
            self._post(sequence, sequence.text.take())

    def _on_code(self, sequence: Sequence) -> None:
        sequence.drafting = False  # its drafts were for the code that is now drawn
        self._on_codes(sequence, 1)

    def _on_codes(self, sequence: Sequence, count: int) -> None:
        sequence.first_token = sequence.first_token or time.monotonic()
        sequence.codes_left -= count
        self.counts.code_tokens += count
        row, state = sequence.row.index, self._batch.state
        done = self._done(sequence)
        if sequence.codes_left:
            drawn = self._limits.codes_per_image - sequence.codes_left
            every = sequence.job.preview_codes
            if every and drawn // every > (drawn - count) // every:
                codes = self._vocabulary.id_to_code(state.tokens[row, done - drawn : done].cpu().numpy())
                self._post(sequence, Preview(tuple(codes.tolist())))
            return
        span = slice(done - self._limits.codes_per_image, done)
        codes = self._vocabulary.id_to_code(state.tokens[row, span].cpu().numpy())
        logprobs, entropies = state.logprobs[row, span], state.entropies[row, span]
        figures = torch.stack((logprobs.mean(), logprobs.min(), entropies.mean())).tolist()
        self._check_finite(figures[0])
        self._post(
            sequence,
            Picture(tuple(codes.tolist()), Confidence(figures[0], figures[1], figures[2], len(codes))),
        )
        self.counts.pictures += 1
        self._changed()
        sequence.phase = Phase.CLOSING
        self._release_companions(sequence)
        if sequence.job.mode is OutputMode.IMAGE:
            self._finish(sequence, FinishReason.STOP)

    def _on_closed(self, sequence: Sequence) -> None:
        """End-of-image has been forced: text goes on, where there is room for it."""
        sequence.phase = Phase.TEXT
        self._changed()
        if self._done(sequence) >= sequence.job.limit:
            self._finish(sequence, FinishReason.LENGTH)

    def _check_finite(self, value: float) -> None:
        if not np.isfinite(value):
            raise FloatingPointError("the model's logits are not finite")

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        self._post(sequence, sequence.text.flush())
        if sequence.text.stopped:
            reason = FinishReason.STOP
        # In image mode the picture's end is part of the answer, though nothing needs to read it.
        unread = sequence.phase is Phase.CLOSING
        usage = sequence.usage(
            self._limits.codes_per_image, self._done(sequence) + unread - sequence.job.prompt_tokens
        )
        self._post(sequence, sequence.finish(reason, usage))
        self.counts.finished += 1
        # The next turn of a dialogue begins with this one.
        self._batch.register_all(sequence.row)
        self._release(sequence)

    def _fail(self, sequence: Sequence, error: MedMaxError) -> None:
        sequence.mailbox.fail(error)
        self.news.add(sequence.mailbox)
        self.counts.failed += 1
        if sequence.row.index >= 0:
            self._release(sequence)

    def _post(self, sequence: Sequence, event: Event | None) -> None:
        if event is not None:
            sequence.mailbox.post(event)
            if sequence.mailbox.eager or isinstance(event, Finish):
                self.news.add(sequence.mailbox)

    def _release_companions(self, sequence: Sequence) -> None:
        for row in sequence.companions:
            self._batch.remove(row)
        sequence.companions = []
        sequence.row.weight = 1.0

    def _release(self, sequence: Sequence) -> None:
        self._release_companions(sequence)
        self._batch.remove(sequence.row)
        self.active.remove(sequence)
        self._reserved -= sequence.rows_needed
        self._changed()

    def _done(self, sequence: Sequence) -> int:
        """Tokens of prompt and answer, the one drawn last included."""
        return int(self._batch.length[sequence.row.index])

    def check_integrity(self) -> None:
        """Every row and block in use belongs to a live sequence, and reservations cover what is in use.

        Raises:
            AssertionError: they do not; a defect of the engine.
        """
        batch = self._batch
        owned = [row for s in self.active for row in s.rows]
        places = [row.index for row in owned]
        problems = {
            "rows out of place": not all(0 <= place < batch.capacity for place in places),
            "rows owned twice": len(set(places)) != len(places),
            "rows without a live owner": len(places) != batch.rows,
            "more rows than reserved": len(owned) > self._reserved,
            "more reserved than there is": self._reserved > batch.capacity,
            "wrong reservations": self._reserved != sum(s.rows_needed for s in self.active),
            "companions outside a picture": any(
                s.companions and s.phase is not Phase.CODES for s in self.active
            ),
            "more read than known": any(batch.read[place] > batch.length[place] for place in places),
            "ids read without a block": any(batch.read[row.index] > len(row.blocks) * BLOCK for row in owned),
        }
        found = [name for name, present in problems.items() if present]
        found += batch.pool.problems([block for row in owned for block in row.blocks])
        if found:
            raise AssertionError(f"the engine's rows are in disorder: {', '.join(found)}")


def _reason(sequence: Sequence) -> MedMaxError:
    if sequence.mailbox.cancelled:
        return Cancelled("the caller went away")
    return DeadlineExceeded("the request's time ran out", field="context.timeout_ms")


_NONE: NDArray[np.int64] = np.empty(0, np.int64)
