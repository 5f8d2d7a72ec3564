"""One running answer: where it stands in the grammar, which rows it holds, what it has said."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from services.checkpoint import Vocabulary
from services.llm.events import Confidence, Finish, FinishReason, TokenLogprob, Usage
from services.llm.request import Job, OutputMode, Sampling
from services.llm.stream import Mailbox
from services.llm.text import TextAssembler


class Phase(Enum):
    """What the next token of a sequence is drawn from."""

    TEXT = "text"
    CODES = "codes"
    CLOSING = "closing"  # all codes are drawn; end-of-image is forced


@dataclass(eq=False)
class Row:
    """A row of the batch: a sequence's own or one of its companions'. `Batch` alone changes the last four.

    Attributes:
        weight: what its logits count for in the guided mixture.
        adapter: what it runs under; see `Job`.
        index: its place in the batch; -1 = none.
        blocks: cache blocks that hold its positions, in order.
        keys: what its full blocks are found by, as far as known.
        registered: blocks that others can find.
    """

    sequence: Sequence
    weight: float = 1.0
    adapter: int = 0
    index: int = -1
    blocks: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    registered: int = 0


@dataclass
class Stashed:
    """What a preempted row needs to go on: its ids so far, and its `RowState`."""

    row: Row
    ids: NDArray[np.int64]
    state: tuple[Tensor, ...]


@dataclass
class Tally:
    """Running confidence over text tokens."""

    tokens: int = 0
    logprob: float = 0.0
    lowest: float = 0.0
    entropy: float = 0.0

    def add(self, logprob: float, entropy: float) -> None:
        self.tokens += 1
        self.logprob += logprob
        self.lowest = min(self.lowest, logprob)
        self.entropy += entropy

    @property
    def confidence(self) -> Confidence:
        n = self.tokens
        return Confidence(self.logprob / n, self.lowest, self.entropy / n, n) if n else Confidence()


@dataclass(eq=False)
class Sequence:
    """The engine's thread alone changes it.

    Attributes:
        rows_needed: rows that it may hold at once, companions included.
        stashed: its rows, while it is preempted.
        cached: prompt tokens that came out of the cache.
        number: order of arrival.
        drafting: whether its picture has drafts.
        keys: what the full blocks of its prompt are found by, once somebody asked.
    """

    job: Job
    mailbox: Mailbox
    text: TextAssembler
    arrival: float = field(default_factory=time.monotonic)
    started: float = 0.0
    first_token: float = 0.0
    phase: Phase = Phase.TEXT
    row: Row = field(init=False)
    rows_needed: int = field(init=False)
    companions: list[Row] = field(default_factory=list)
    needs_companions: bool = False
    codes_left: int = 0
    end_id: int | None = None
    images: int = 0
    picture_begun: float = 0.0
    tally: Tally = field(default_factory=Tally)
    stashed: list[Stashed] = field(default_factory=list)
    cached: int = 0
    number: int = 0
    keys: list[bytes] | None = None
    drafting: bool = False

    def __post_init__(self) -> None:
        self.row = Row(self, adapter=self.job.adapter)
        self.rows_needed = 1 + most_companions(self.job)

    @cached_property
    def random(self) -> np.random.Generator:
        """Numbers for drafting, of its own."""
        return np.random.Generator(np.random.Philox([self.job.sampling.seed, 1]))

    @property
    def rows(self) -> list[Row]:
        """Its own row, then its companions'."""
        return [self.row, *self.companions]

    @property
    def rank(self) -> tuple[int, int]:
        """Who goes first: the smaller. Higher priority, then earlier arrival."""
        return -self.job.priority, self.number

    def dead(self, now: float) -> bool:
        """Whether it was cancelled or its deadline has passed at monotonic time `now`."""
        deadline = self.job.deadline
        return self.mailbox.cancelled or (deadline is not None and deadline.at <= now)

    def begin_picture(self, codes: int) -> None:
        """Begin-of-image has been drawn or forced."""
        self.phase, self.codes_left, self.needs_companions = Phase.CODES, codes, True
        self.drafting = False
        self.images += 1
        self.picture_begun = time.monotonic()

    def after_ms(self, moment: float) -> float:
        """Milliseconds from the arrival to monotonic time `moment`."""
        return (moment - self.arrival) * 1000

    def usage(self, codes_per_image: int, completed: int) -> Usage:
        return Usage(
            prompt_tokens=self.job.prompt_tokens,
            completion_tokens=completed,
            prompt_image_tokens=self.job.prompt_images * codes_per_image,
            completion_image_tokens=self.images * codes_per_image,
            images=self.images,
            cached_tokens=self.cached,
            seed=self.job.sampling.seed,
        )

    def finish(self, reason: FinishReason, usage: Usage) -> Finish:
        return Finish(
            reason,
            usage,
            self.tally.confidence,
            queue_ms=self.after_ms(self.started),
            first_token_ms=self.after_ms(self.first_token),
            end_id=self.end_id,
        )

    def logprob(
        self, vocabulary: Vocabulary, token_id: int, value: float, top: list[tuple[int, float]]
    ) -> TokenLogprob:
        def entry(i: int, p: float) -> TokenLogprob:
            return TokenLogprob(i, vocabulary.decode([i]) or vocabulary.name(i), min(p, 0.0))

        own = entry(token_id, value)
        alternatives = tuple(entry(i, p) for i, p in top if math.isfinite(p) and p > -1e20)
        return TokenLogprob(own.token_id, own.token, own.logprob, alternatives)


def guidance_weights(sampling: Sampling, pictures: bool) -> tuple[float, float, float]:
    """Weights of the streams full, image and none in the guided logits.

    From none + s_img (image - none) + s_txt (full - image), written as one weighted sum. Where the context
    holds no picture, the streams image and none are the same and one of them carries both weights.
    """
    text, image = sampling.guidance_text, sampling.guidance_image
    if not pictures:
        return text, 0.0, 1.0 - text
    return text, image - text, 1.0 - image


def most_companions(job: Job) -> int:
    """Companion rows that the sequence may need at once."""
    if job.mode is OutputMode.TEXT or job.max_images == 0:
        return 0
    with_picture = job.prompt_images > 0
    cases = [with_picture] if job.max_images == 1 else [with_picture, True]
    return max(sum(weight != 0 for weight in guidance_weights(job.sampling, case)[1:]) for case in cases)


def companion_prompts(
    ids: NDArray[np.int64], sampling: Sampling, vocabulary: Vocabulary
) -> list[tuple[float, NDArray[np.int64]]]:
    """Weight and prompt of every companion of a sequence whose ids so far, int64 [length], end in begin-of-image."""
    pictures = bool((ids == vocabulary.end_image).any())
    _, image, none = guidance_weights(sampling, pictures)
    prompts = []
    if image != 0:
        keep = vocabulary.id_to_code(ids) >= 0
        keep |= np.isin(ids, (vocabulary.bos, vocabulary.begin_image, vocabulary.end_image))
        prompts.append((image, ids[keep]))
    if none != 0:
        prompts.append((none, np.array([vocabulary.bos, vocabulary.begin_image], dtype=np.int64)))
    return prompts
