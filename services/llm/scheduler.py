"""The step: who runs, what each draws next, who is done.

A sequence is admitted once rows for it and for every guidance companion it may need are free, so that what
was admitted can finish.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from services.errors import Cancelled, DeadlineExceeded, MedMaxError, internal_error
from services.llm.batch import Batch, Plan
from services.llm.decoding import Decoding, Drawn
from services.llm.events import Confidence, Event, Finish, FinishReason, Picture
from services.llm.request import OutputMode
from services.llm.sequence import Phase, Row, Sequence, companion_prompts
from services.llm.stream import Mailbox
from services.llm.validation import Limits
from services.llm.waiting import WaitingLine

log = logging.getLogger(__name__)

# Prompt tokens read in one step, beyond the first prompt: running answers wait meanwhile.
PREFILL_TOKENS = 4096


@dataclass
class Counts:
    """Totals since the engine's start."""

    steps: int = 0
    prompt_tokens: int = 0
    text_tokens: int = 0
    pictures: int = 0
    finished: int = 0
    failed: int = 0


class Scheduler:
    """Owns the running sequences and their rows; only the engine's thread calls `step`.

    Attributes:
        active: sequences that hold rows.
        news: mailboxes that got something since whoever rings them last cleared the set.
    """

    def __init__(
        self,
        batch: Batch,
        decoding: Decoding,
        limits: Limits,
        waiting: WaitingLine,
        lock: threading.Condition,
    ) -> None:
        """lock: guards `waiting`, which callers' threads fill, and the passage from there to `active`."""
        self._batch, self._decoding, self._limits = batch, decoding, limits
        self._vocabulary = limits.vocabulary
        self._waiting, self._lock = waiting, lock
        self.active: list[Sequence] = []
        self.news: set[Mailbox] = set()
        self.counts = Counts()
        self._reserved = 0
        self._plan: Plan | None = None

    def warm_up(self) -> None:
        """Make the first step as fast as the others."""
        self._decoding.warm_up()

    def step(self) -> None:
        """Drop the dead, admit the waiting, read one id or prompt per row, draw and act on what was drawn."""
        self._drop_dead()
        reading = len(self._batch.rows)
        for sequence in self.active:
            if sequence.needs_companions:
                self._fork(sequence, sequence.done_tokens)
        self._admit(reading)
        if not self._batch.rows:
            return
        if self._plan is None:
            self._plan = self._batch.plan()
        plan = self._plan
        drawn = self._decoding.draw(plan, self._decoding.read(reading))
        self.counts.steps += 1
        if plan.text and drawn:
            self._each(plan.text.sequences, lambda index, s: self._on_text(s, drawn, index))
        if plan.codes:
            self._each(plan.codes.sequences, lambda _, s: self._on_code(s))
        self._each(plan.closing, lambda _, s: self._on_closed(s))

    def _each(self, sequences: list[Sequence], act: Callable[[int, Sequence], None]) -> None:
        """Act on each sequence; what goes wrong with one ends that one."""
        for index, sequence in enumerate(sequences):
            try:
                act(index, sequence)
            except Exception:
                error = internal_error()
                log.exception("a sequence failed: %s", error.message)
                for row in (sequence.row, *sequence.companions):
                    if row.index >= 0:
                        self._batch.cache.clear(row.index)
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

    def _admit(self, reading: int) -> None:
        """Take in waiting sequences while rows are free, up to a step's worth of prompts."""
        while True:
            read = sum(row.position for row in self._batch.rows[reading:])
            with self._lock:
                first = self._waiting.first
                if first is None or (read and read + len(first.job.prompt) > PREFILL_TOKENS):
                    return
                if self._reserved + first.rows_needed > self._batch.capacity:
                    return
                sequence = self._waiting.pop()
                self.active.append(sequence)
            self._start(sequence)

    def _start(self, sequence: Sequence) -> None:
        job, row, state = sequence.job, sequence.row, self._batch.state
        sequence.started = time.monotonic()
        self._reserved += sequence.rows_needed
        self.counts.prompt_tokens += job.prompt_tokens
        self._plan = None
        self._batch.add(row, job.prompt)
        # Philox: a counter-based generator, so that a seed means the same numbers on every machine.
        numbers = np.random.Generator(np.random.Philox(job.sampling.seed)).random(
            job.limit - job.prompt_tokens
        )
        state.uniform[row.index, job.prompt_tokens : job.limit] = torch.from_numpy(numbers)
        if job.mode is OutputMode.IMAGE:
            sequence.begin_picture(self._limits.codes_per_image)
            self._fork(sequence, len(job.prompt))
        elif job.max_images:
            state.image_limit[row.index] = job.limit - self._limits.span

    def _fork(self, sequence: Sequence, length: int) -> None:
        """Add the guidance companions of a sequence the last of whose `length` ids is begin-of-image."""
        sequence.needs_companions = False
        self._plan = None
        row = sequence.row
        ids = self._batch.state.tokens[row.index, :length].cpu().numpy()
        prompts = companion_prompts(ids, sequence.job.sampling, self._vocabulary)
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
            self._plan = None
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
        elif sequence.done_tokens >= sequence.job.limit:
            self._finish(sequence, FinishReason.LENGTH)
        else:
            self._post(sequence, sequence.text.take())

    def _on_code(self, sequence: Sequence) -> None:
        sequence.first_token = sequence.first_token or time.monotonic()
        sequence.codes_left -= 1
        if sequence.codes_left:
            return
        row, state = sequence.row.index, self._batch.state
        span = slice(sequence.row.position + 1 - self._limits.codes_per_image, sequence.row.position + 1)
        codes = self._vocabulary.id_to_code(state.tokens[row, span].cpu().numpy())
        logprobs, entropies = state.logprobs[row, span], state.entropies[row, span]
        figures = torch.stack((logprobs.mean(), logprobs.min(), entropies.mean())).tolist()
        self._check_finite(figures[0])
        self._post(
            sequence,
            Picture(tuple(codes.tolist()), Confidence(figures[0], figures[1], figures[2], len(codes))),
        )
        self.counts.pictures += 1
        self._plan = None
        sequence.phase = Phase.CLOSING
        self._release_companions(sequence)
        if sequence.job.mode is OutputMode.IMAGE:
            self._finish(sequence, FinishReason.STOP)

    def _on_closed(self, sequence: Sequence) -> None:
        """End-of-image has been forced: text goes on, where there is room for it."""
        sequence.phase = Phase.TEXT
        self._plan = None
        if sequence.done_tokens >= sequence.job.limit:
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
            self._limits.codes_per_image, sequence.done_tokens + unread - sequence.job.prompt_tokens
        )
        self._post(sequence, sequence.finish(reason, usage))
        self.counts.finished += 1
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
        self._plan = None

    def check_integrity(self) -> None:
        """Every row in use belongs to a live sequence, and reservations cover what is in use.

        Raises:
            AssertionError: they do not; a defect of the engine.
        """
        rows = self._batch.rows
        owned = [row for s in self.active for row in (s.row, *s.companions)]
        problems = {
            "rows out of place": [row.index for row in rows] != list(range(len(rows))),
            "rows without a live owner": {id(row) for row in rows} != {id(row) for row in owned},
            "rows owned twice": len(owned) != len(rows),
            "more rows than reserved": len(rows) > self._reserved,
            "more reserved than there is": self._reserved > self._batch.capacity,
            "wrong reservations": self._reserved != sum(s.rows_needed for s in self.active),
            "companions outside a picture": any(
                s.companions and s.phase is not Phase.CODES for s in self.active
            ),
        }
        found = [name for name, present in problems.items() if present]
        if found:
            raise AssertionError(f"the engine's rows are in disorder: {', '.join(found)}")


def _reason(sequence: Sequence) -> MedMaxError:
    if sequence.mailbox.cancelled:
        return Cancelled("the caller went away")
    return DeadlineExceeded("the request's time ran out", field="context.timeout_ms")
