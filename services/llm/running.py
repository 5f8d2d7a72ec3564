"""The sequences that hold rows, and what they hold."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from services.llm.batch import Batch
from services.llm.kv_cache import BLOCK, blocks_for
from services.llm.request import OutputMode
from services.llm.sequence import Phase, Row, Sequence, Stashed, companion_prompts
from services.llm.validation import Limits


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


class Running:
    """Gives sequences their rows and takes them away; only the engine's thread calls it.

    Attributes:
        active: sequences that hold rows, in the order of their admission.
        reserved: rows that they may need, guidance companions included.
        changes: counts up whenever one comes, goes or changes phase.
        counts: totals.
    """

    def __init__(self, batch: Batch, limits: Limits) -> None:
        self._batch, self._limits = batch, limits
        self.active: list[Sequence] = []
        self.reserved = self.changes = 0
        self.counts = Counts()
        self._order: list[Sequence] | None = None

    def ranked(self) -> list[Sequence]:
        """All of them, first in rank first."""
        if self._order is None:
            self._order = sorted(self.active, key=lambda s: s.rank)
        return self._order

    def changed(self) -> None:
        """A sequence came, went or changed phase."""
        self._order = None
        self.changes += 1

    def has_room(self, sequence: Sequence) -> bool:
        """Whether rows are free, and blocks for what the sequence has to read at once and one for each running row."""
        if self.reserved + sequence.rows_needed > self._batch.capacity:
            return False
        if not self.active:
            return True
        ids = sum(len(part.ids) for part in sequence.stashed) or len(sequence.job.prompt)
        return blocks_for(ids + 1) + self._batch.rows <= self._batch.pool.available

    def start(self, sequence: Sequence) -> None:
        """Rows for a sequence that `active` has just taken in: its prompt's, or all those it had before."""
        job, row, batch = sequence.job, sequence.row, self._batch
        self.reserved += sequence.rows_needed
        self.changed()
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
            self.fork(sequence)
        elif job.max_images:
            batch.state.image_limit[row.index] = job.limit - self._limits.span

    def fork(self, sequence: Sequence) -> None:
        """Add the guidance companions of a sequence whose ids end in begin-of-image."""
        sequence.needs_companions = False
        self.changed()
        row = sequence.row
        prompts = companion_prompts(self._batch.ids(row), sequence.job.sampling, self._limits.vocabulary)
        row.weight = 1.0 if not prompts else sequence.job.sampling.guidance_text
        for weight, prompt in prompts:
            companion = Row(sequence, weight, sequence.job.adapter)
            sequence.companions.append(companion)
            self._batch.add(companion, prompt)

    def stash(self, sequence: Sequence) -> None:
        """Take a sequence's rows and blocks away; it goes on from the same state when there is room."""
        self.counts.preempted += 1
        sequence.stashed = [
            Stashed(row, self._batch.ids(row).copy(), self._batch.state.save(row.index))
            for row in sequence.rows
        ]
        for row in sequence.rows:
            self._batch.remove(row)
        self.active.remove(sequence)
        self.reserved -= sequence.rows_needed
        self.changed()

    def release_companions(self, sequence: Sequence) -> None:
        """The picture is complete: guidance is over."""
        for row in sequence.companions:
            self._batch.remove(row)
        sequence.companions = []
        sequence.row.weight = 1.0

    def release(self, sequence: Sequence) -> None:
        """The sequence is done: its rows and blocks are free."""
        self.release_companions(sequence)
        self._batch.remove(sequence.row)
        self.active.remove(sequence)
        self.reserved -= sequence.rows_needed
        self.changed()

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
            "more rows than reserved": len(owned) > self.reserved,
            "more reserved than there is": self.reserved > batch.capacity,
            "wrong reservations": self.reserved != sum(s.rows_needed for s in self.active),
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
