"""The experts: what each knows, may decide, and can take on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select

from annotation.store.audit import Plain
from annotation.store.ledger import CONTROLLER, Ledger
from annotation.store.schema import annotators
from services.errors import InvalidInput, NotFound

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SPECIALITY = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_SPECIALITIES = 100


@dataclass(frozen=True)
class Annotator:
    """
    Attributes:
        id: Label Studio's user id as text, never a name or an address.
        specialities: whose items the expert gets.
        adjudicator: decides conflicts and gets nothing else, since an adjudicator's verdict outweighs all others.
        active: gets items.
        max_open: items held at once, 1 or more.
        max_daily: items in a UTC day, held or done.
    """

    id: str
    specialities: tuple[str, ...] = ("general",)
    adjudicator: bool = False
    active: bool = True
    max_open: int = 1
    max_daily: int = 200

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise InvalidInput("must be 1 to 64 characters of [A-Za-z0-9_-]", field="annotator.id")
        names = self.specialities
        if len(names) > MAX_SPECIALITIES or not all(_SPECIALITY.fullmatch(name) for name in names):
            raise InvalidInput(
                "at most 100 names of 1 to 64 characters of [A-Za-z0-9_-]", field="annotator.specialities"
            )
        for field in ("max_open", "max_daily"):
            if not 0 <= getattr(self, field) <= 100_000:
                raise InvalidInput("must be 0 to 100,000", field=f"annotator.{field}")


@dataclass(frozen=True)
class Crew:
    ledger: Ledger

    def put(self, annotator: Annotator, who: str = CONTROLLER) -> None:
        """Add an expert, or change one that is there."""
        values = {**vars(annotator), "specialities": sorted(set(annotator.specialities))}
        with self.ledger.change(who) as change:
            known = select(annotators).where(annotators.c.id == annotator.id).with_for_update(key_share=True)
            row = change.connection.execute(known).one_or_none()
            change.connection.execute(
                change.upsert(annotators)
                .values(**values, created_at=change.now)
                .on_conflict_do_update(index_elements=["id"], set_=values)
            )
            before = {} if row is None else _plain(as_annotator(row))
            change.note("annotator", annotator.id, before, _plain(annotator))

    def get(self, id: str) -> Annotator:
        """Raises: NotFound."""
        with self.ledger.read() as connection:
            row = connection.execute(select(annotators).where(annotators.c.id == id)).one_or_none()
        if row is None:
            raise NotFound("no such annotator", field="annotator")
        return as_annotator(row)

    def all(self) -> list[Annotator]:
        """In the order of their ids; those who only appeared in Label Studio are inactive."""
        with self.ledger.read() as connection:
            return [
                as_annotator(row) for row in connection.execute(select(annotators).order_by(annotators.c.id))
            ]


def _plain(annotator: Annotator) -> dict[str, Plain]:
    names = "+".join(sorted(set(annotator.specialities)))
    return {
        "specialities": names if len(names) <= 128 else len(annotator.specialities),
        "adjudicator": annotator.adjudicator,
        "active": annotator.active,
        "max_open": annotator.max_open,
        "max_daily": annotator.max_daily,
    }


def as_annotator(row: Row[Any]) -> Annotator:
    return Annotator(
        row.id, tuple(row.specialities), row.adjudicator, row.active, row.max_open, row.max_daily
    )
