"""Interactions that may be sent to experts, read without their texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    exists,
    func,
    literal_column,
    or_,
    select,
    type_coerce,
)

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


def kind_of(task: str, mode: str, output_images: int) -> Kind:
    """Of an interaction; by its mode and pictures where an older program stored no task."""
    if task in KINDS:
        return KINDS[task]
    return Kind.PICTURE if mode == "image" or output_images else Kind.CHAT


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
        agreement: share of answers drawn anew that agree, 0 to 1; None where none were drawn.
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

    @property
    def kind(self) -> Kind:
        return kind_of(self.task, self.mode, self.output_images)

    @classmethod
    def of(cls, row: Iterable[Any]) -> Candidate:
        """From a row of COLUMNS."""
        return cls(*row)


def _column(name: str) -> ColumnElement[Any]:
    if name == "agreement":
        return resamples.c.agreement
    return interactions.c["id" if name == "interaction_id" else name]


COLUMNS = tuple(_column(name) for name in Candidate.__dataclass_fields__)
"""What a candidate is made of; of SOURCE."""
SOURCE = interactions.outerjoin(resamples, resamples.c.interaction_id == interactions.c.id)


def wanted(now: datetime) -> Select[Any]:
    """Rows of COLUMNS of interactions with consent to training, not expired at `now`, that no item was made of."""
    of = interactions.c
    routed = exists().where(items.c.interaction_id == of.id)
    return select(*COLUMNS).select_from(SOURCE).where(of.consent_training, of.expires_at > now, ~routed)


class Columns(NamedTuple):
    """What routing needs of many candidates, without an object for each; as in `Candidate`, apart from these:

    created_at: naive, ISO 8601, in UTC.
    mean_logprob, min_logprob, mean_entropy, picture_logprob, agreement: None, a number, or its name ("-Infinity").
    repeats: an item has the same digest.
    flagged: a user asked for review or wrote a correction.
    """

    interaction_id: Sequence[str]
    created_at: Sequence[str]
    caller: Sequence[str]
    model_id: Sequence[str]
    mode: Sequence[str]
    reason: Sequence[str]
    task: Sequence[str]
    modality: Sequence[str]
    digest: Sequence[str]
    mean_logprob: Sequence[float | str | None]
    min_logprob: Sequence[float | str | None]
    mean_entropy: Sequence[float | str | None]
    picture_logprob: Sequence[float | str | None]
    output_images: Sequence[int]
    agreement: Sequence[float | str | None]
    repeats: Sequence[bool]
    flagged: Sequence[bool]


@dataclass(frozen=True)
class Candidates:
    ledger: Ledger

    def columns(self, *, since: datetime | None = None, size: int = _PAGE) -> Iterator[Columns]:
        """All candidates in the order of their ids, which is that of time, a page at a time.

        Left out are interactions without consent to training, expired ones and those that an item was made of.
        Memory stays flat: a page is read when it is asked for.

        Args:
            since: only those made then or later.
            size: at most so many a page.
        """
        of = interactions.c
        postgres = self.ledger.engine.dialect.name == "postgresql"
        # A literal: PostgreSQL takes a parameter for text of no known type.
        utc = func.timezone(literal_column("'UTC'"), of.created_at) if postgres else of.created_at
        own: dict[str, ColumnElement[Any]] = {
            "created_at": type_coerce(utc, String),
            "repeats": exists().where(items.c.digest == of.digest, of.digest != ""),
        }
        chosen = [own[name] if name in own else _column(name) for name in Columns._fields[:-1]]
        # Each by a name of its own: the aggregates below name them.
        named = [each.label(name) for name, each in zip(Columns._fields, chosen, strict=False)]
        statement = wanted(self.ledger.clock()).with_only_columns(*named).order_by(of.id).limit(size)
        if since is not None:
            statement = statement.where(of.created_at >= since)
        after = ""
        while True:
            with self.ledger.read() as connection:
                read = _columns(connection, statement.where(of.id > after))
                if read is None:
                    return
                ids = read[0]
                said = _WANTS_REVIEW.where(
                    feedback.c.interaction_id > after, feedback.c.interaction_id <= ids[-1]
                )
                flagged = set(connection.scalars(said))
            after = ids[-1]
            yield Columns._make([*read, [id in flagged for id in ids]])


def _columns(connection: Connection, statement: Select[Any]) -> Sequence[Sequence[Any]] | None:
    """None where there are no rows."""
    if connection.dialect.name != "postgresql":
        return list(zip(*connection.execute(statement), strict=True)) or None
    # One row of JSON arrays: the driver, which is written in Python, takes its time for each row.
    inner = statement.subquery()
    read = connection.execute(select(*(func.json_agg(each) for each in inner.c))).one()
    return None if read[0] is None else read


_WANTS_REVIEW = select(feedback.c.interaction_id).where(or_(feedback.c.flag, feedback.c.corrected_text != ""))
