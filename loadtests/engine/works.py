"""What is asked: (a) text, (b) ten questions on one picture, (c) guided pictures, (d) all of them as they arrive.

A job's prompts depend on the work, the round and the seed alone, so that every engine gets the same; no two rounds share one,
so that no prefix of an earlier round is found again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loadtests.engine.jobs import Job, Objective, Request
from services.checkpoint import Checkpoint

KINDS = ("text", "questions", "pictures", "mixed")
PROMPT, QUESTION, QUESTIONS, ANSWER = 64, 12, 10, 32  # tokens; questions on one picture
DESCRIPTION = 32  # tokens of what a picture is drawn from
OURS, SERIAL, ONE, GUIDED = "ours", "ours-serial", "one question", "transformers-guided"
# Shares of text, of questions on a picture and of guided pictures among mixed arrivals, and pictures asked about.
MIX, FILMS = (0.4, 0.4, 0.2), 8
MIXED_TEXT, MIXED_ROWS = 64, 64  # new tokens; rows for whatever arrives


@dataclass(frozen=True)
class Work:
    """One kind of work at one load.

    Attributes:
        kind: one of `KINDS`.
        callers: requests at once; 0 where they arrive by themselves.
    """

    kind: str
    callers: int = 0

    @property
    def title(self) -> str:
        return f"{self.kind}, {self.callers} callers" if self.callers else self.kind


class Prompts:
    """Random requests for one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, seed: tuple[int, ...]) -> None:
        self._vocabulary = checkpoint.vocabulary
        self._codes = checkpoint.codes_per_image
        self._random = np.random.default_rng(seed)
        decode = self._vocabulary.decode
        self._text_ids = [int(i) for i in self._vocabulary.text_ids if "\ufffd" not in decode([int(i)])]

    def words(self, count: int) -> list[int]:
        """Random text ids."""
        return [int(i) for i in self._random.choice(self._text_ids, count)]

    def span(self) -> list[int]:
        """A random picture with its begin and end."""
        return self._vocabulary.image_span(self._random.integers(self._vocabulary.n_codes, size=self._codes))

    def text(self, new_tokens: int) -> Request:
        """As long as `PROMPT` tells, begin-of-sequence included."""
        return Request([self._vocabulary.bos, *self.words(PROMPT - 1)], new_tokens)

    def question(self, span: list[int]) -> Request:
        v = self._vocabulary
        return Request([v.bos, *span, *self.words(QUESTION), v.end_of_turn], ANSWER)

    def picture(self) -> Request:
        v = self._vocabulary
        prompt = [v.bos, *self.words(DESCRIPTION), v.end_of_turn]
        return Request(prompt, picture=True, seed=int(self._random.integers(1 << 31)))


def jobs(work: Work, checkpoint: Checkpoint, new_tokens: int, round_: int) -> Mapping[str, Job]:
    """The jobs of a round by who runs them; "text" is one for all engines, under `OURS`.

    `GUIDED` draws one picture whatever the load: it serves one after the other, and its rate is what is compared.
    """
    prompts = Prompts(checkpoint, (round_, work.callers, KINDS.index(work.kind)))
    if work.kind == "text":
        return {OURS: Job([prompts.text(new_tokens) for _ in range(work.callers)])}
    if work.kind == "questions":
        span = prompts.span()
        return {
            ONE: Job([prompts.question(prompts.span())]),
            OURS: Job([prompts.question(span) for _ in range(work.callers)]),
            # The reference reads the picture again for every question: so does one on a picture of its own.
            SERIAL: Job([prompts.question(prompts.span()) for _ in range(work.callers)], in_flight=1),
        }
    drawn = [prompts.picture() for _ in range(work.callers)]
    if work.callers == 1:
        return {OURS: Job(drawn), GUIDED: Job(drawn)}
    return {OURS: Job(drawn), SERIAL: Job(drawn, in_flight=1), GUIDED: Job(drawn[:1])}


def engines_for(kind: str, engines: Sequence[str]) -> list[str]:
    """Those of `engines` that do this kind of work."""
    able = {"text": [name for name in engines if name != GUIDED], "pictures": [OURS, GUIDED]}.get(
        kind, [OURS]
    )
    return [name for name in engines if name in able]


def arrivals(
    checkpoint: Checkpoint,
    rate: float,
    window_s: float,
    numbers: tuple[int, int],
    limit: Objective,
    in_flight: int = 0,
) -> Job:
    """Mixed requests at `rate` a second for `window_s` seconds, Poisson; of the same kinds, closer, at a higher rate.

    Args:
        numbers: of the round, which decides when what kind of request comes, and of the trial in it, which decides its
            words: no trial finds an earlier one's in the engine's cache.
    """
    round_, trial = numbers
    prompts = Prompts(checkpoint, (round_, trial, KINDS.index("mixed"), 1))
    films = [prompts.span() for _ in range(FILMS)]
    random = np.random.default_rng((round_, 1))
    requests: list[Request] = []
    now = 0.0
    while now < window_s or not requests:
        kind, film, gap = random.choice(3, p=MIX), random.integers(FILMS), random.exponential()
        if kind == 0:
            request = prompts.text(MIXED_TEXT)
        elif kind == 1:
            request = prompts.question(films[film])
        else:
            request = prompts.picture()
        requests.append(replace(request, arrival_s=now))
        now += float(gap) / rate
    return Job(requests, in_flight, give_up=limit)


def samples_of_each(checkpoint: Checkpoint) -> Job:
    """One text, one question and one guided picture, one at a time: to warm up, and to see how long they take."""
    prompts = Prompts(checkpoint, (0, 1, KINDS.index("mixed")))
    return Job([prompts.text(MIXED_TEXT), prompts.question(prompts.span()), prompts.picture()], in_flight=1)


def rows_and_tokens(works: Sequence[Work], new_tokens: int, checkpoint: Checkpoint) -> tuple[int, int]:
    """Rows of the batch, guidance companions included, and positions of the cache that the works need at once."""
    span = checkpoint.codes_per_image + DESCRIPTION + QUESTION + ANSWER + 8
    rows_of = {"text": 1, "questions": 1, "pictures": 2, "mixed": 1}
    length = {"text": PROMPT + new_tokens, "questions": span, "pictures": span, "mixed": span}
    rows = [rows_of[w.kind] * (w.callers or MIXED_ROWS) for w in works]
    return max(4, *rows), max(n * length[w.kind] for n, w in zip(rows, works, strict=True))
