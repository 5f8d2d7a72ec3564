"""What was drawn becomes what callers get: text, pictures, previews, the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import torch

from services.errors import MedMaxError, internal_error
from services.llm.batch import Batch
from services.llm.decoding import Drawn
from services.llm.events import Confidence, Event, Finish, FinishReason, Picture, Preview
from services.llm.request import OutputMode
from services.llm.running import Running
from services.llm.sequence import Phase, Sequence
from services.llm.stream import Mailbox
from services.llm.validation import Limits

log = logging.getLogger(__name__)


class Answers:
    """Moves sequences on by what they drew and posts events; only the engine's thread calls it.

    Attributes:
        news: mailboxes that got something since whoever rings them last cleared the set.
    """

    def __init__(self, batch: Batch, running: Running, limits: Limits) -> None:
        self._batch, self._running, self._limits = batch, running, limits
        self._counts, self._vocabulary = running.counts, limits.vocabulary
        self.news: set[Mailbox] = set()

    def each(self, sequences: list[Sequence], act: Callable[[int, Sequence], None]) -> None:
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
                self.fail(sequence, error)

    def on_text(self, sequence: Sequence, drawn: Drawn, index: int) -> None:
        token, logprob = drawn.ids[index], drawn.logprobs[index]
        self._check_finite(logprob)
        sequence.first_token = sequence.first_token or time.monotonic()
        vocabulary = self._vocabulary
        if token == vocabulary.begin_image:
            self._post(sequence, sequence.text.flush())
            sequence.begin_picture(self._limits.codes_per_image)
            if sequence.images == sequence.job.max_images:
                self._batch.state.image_limit[sequence.row.index] = -1
            self._running.changed()
            return
        if token in (vocabulary.eos, vocabulary.end_of_turn):
            sequence.end_id = token
            self._finish(sequence, FinishReason.STOP)
            return
        self._counts.text_tokens += 1
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

    def on_code(self, sequence: Sequence) -> None:
        sequence.drafting = False  # its drafts were for the code that is now drawn
        self.on_codes(sequence, 1)

    def on_codes(self, sequence: Sequence, count: int) -> None:
        sequence.first_token = sequence.first_token or time.monotonic()
        sequence.codes_left -= count
        self._counts.code_tokens += count
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
        confidence = Confidence(figures[0], figures[1], figures[2], len(codes))
        begun, now = sequence.after_ms(sequence.picture_begun), sequence.after_ms(time.monotonic())
        self._post(sequence, Picture(tuple(codes.tolist()), confidence, begun, now))
        self._counts.pictures += 1
        self._running.changed()
        sequence.phase = Phase.CLOSING
        self._running.release_companions(sequence)
        if sequence.job.mode is OutputMode.IMAGE:
            self._finish(sequence, FinishReason.STOP)

    def on_closed(self, sequence: Sequence) -> None:
        """End-of-image has been forced: text goes on, where there is room for it."""
        sequence.phase = Phase.TEXT
        self._running.changed()
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
        self._counts.finished += 1
        # The next turn of a dialogue begins with this one.
        self._batch.register_all(sequence.row)
        self._running.release(sequence)

    def fail(self, sequence: Sequence, error: MedMaxError) -> None:
        sequence.mailbox.fail(error)
        self.news.add(sequence.mailbox)
        self._counts.failed += 1
        if sequence.row.index >= 0:
            self._running.release(sequence)

    def _post(self, sequence: Sequence, event: Event | None) -> None:
        if event is not None:
            sequence.mailbox.post(event)
            if sequence.mailbox.eager or isinstance(event, Finish):
                self.news.add(sequence.mailbox)

    def _done(self, sequence: Sequence) -> int:
        """Tokens of prompt and answer, the one drawn last included."""
        return int(self._batch.length[sequence.row.index])
