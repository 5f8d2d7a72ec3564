"""Interactions that may be sent to experts, read without their texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, case, exists, func, or_, select

from annotation.core import Kind
from annotation.store.ledger import Ledger
from annotation.store.schema import items, resamples
from services.interactions.schema import feedback, interactions

KINDS = {
    "vqa": Kind.CHAT,
    "visual_chat": Kind.CHAT,
    "captioning": Kind.REPORT,
    "report_understanding": Kind.REPORT,
    "image_generation": Kind.PICTURE,
    "multimodal_generation": Kind.PICTURE,
}
"""What is asked of an expert about an answer of each task."""

_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """An interaction with consent that no item was made of.

    Attributes:
        mode: `text`, `image` or `interleaved`.
        reason: why the answer ended, `stop` or `length`.
        task, modality: by `services.interactions.tasks`; `task` is empty where an older program stored it.
        digest: equal for the same question, pictures and answer; empty where an older program stored it.
        mean_logprob, min_logprob: nats, of the text; None where there is none. `min_logprob` may be -inf.
        mean_entropy: nats.
        picture_logprob: mean over the least likely generated picture; None without one.
        tokens, characters: of the answer's text.
        prompt_images, output_images: how many.
        flagged: a user asked for review or wrote a correction.
        agreement: share of answers drawn anew that agree, 0 to 1; None where none were drawn.
        rating: the lowest that users gave, 1 to 5.
    """

    interaction_id: str
    created_at: datetime
    caller: str
    model_id: str
    mode: str
    reason: str
    task: str
    modality: str
    digest: str
    mean_logprob: float | None
    min_logprob: float | None
    mean_entropy: float | None
    picture_logprob: float | None
    tokens: int
    characters: int
    prompt_images: int
    output_images: int
    agreement: float | None = None
    flagged: bool = False
    rating: int | None = None

    @property
    def kind(self) -> Kind:
        if self.task in KINDS:
            return KINDS[self.task]
        return Kind.PICTURE if self.mode == "image" or self.output_images else Kind.CHAT

    @classmethod
    def of(cls, row: Iterable[Any], flagged: bool = False, rating: int | None = None) -> Candidate:
        """From a row of COLUMNS."""
        values: list[Any] = [*row, flagged, rating]
        return cls(*values)


def _column(name: str) -> ColumnElement[Any]:
    if name == "agreement":
        return resamples.c.agreement
    return interactions.c["id" if name == "interaction_id" else name]


COLUMNS = tuple(_column(name) for name in Candidate.__dataclass_fields__ if name not in {"flagged", "rating"})
"""What a candidate is made of; of SOURCE."""
SOURCE = interactions.outerjoin(resamples, resamples.c.interaction_id == interactions.c.id)


def wanted(now: datetime) -> Select[Any]:
    """Rows of COLUMNS of interactions with consent to training, not expired at `now`, that no item was made of."""
    of = interactions.c
    routed = exists().where(items.c.interaction_id == of.id)
    return select(*COLUMNS).select_from(SOURCE).where(of.consent_training, of.expires_at > now, ~routed)


@dataclass(frozen=True)
class Candidates:
    ledger: Ledger

    def pages(
        self, after: str = "", *, since: datetime | None = None, size: int = _PAGE
    ) -> Iterator[list[Candidate]]:
        """All candidates in the order of their ids, which is that of time, a page at a time.

        Left out are interactions without consent to training, expired ones and those that an item was made of.
        Memory stays flat: a page is read when it is asked for.

        Args:
            after: an interaction's id; only later ones.
            since: only those made then or later.
            size: at most so many a page.
        """
        of = interactions.c
        statement = wanted(self.ledger.clock()).order_by(of.id).limit(size)
        if since is not None:
            statement = statement.where(of.created_at >= since)
        while True:
            with self.ledger.read() as connection:
                rows: Sequence[Row[Any]] = connection.execute(statement.where(of.id > after)).all()
                if not rows:
                    return
                heard = connection.execute(
                    _FEEDBACK.where(
                        feedback.c.interaction_id > after, feedback.c.interaction_id <= rows[-1].id
                    )
                )
                said = {row.interaction_id: (bool(row.flagged), row.rating) for row in heard}
            after = rows[-1].id
            yield [Candidate.of(row, *said.get(row[0], _SILENCE)) for row in rows]


_WANTS_REVIEW = or_(feedback.c.flag, feedback.c.corrected_text != "")
_FEEDBACK = select(
    feedback.c.interaction_id,
    func.max(case((_WANTS_REVIEW, 1), else_=0)).label("flagged"),
    func.min(feedback.c.rating).label("rating"),
).group_by(feedback.c.interaction_id)
_SILENCE: tuple[bool, int | None] = (False, None)
