"""Experts' verdicts as Label Studio has them, every version of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, insert, select, true, tuple_, update

from annotation.core import Annotation, Kind, Verdict
from annotation.store.codec import verdict_from_json, verdict_to_json
from annotation.store.entries import item_key
from annotation.store.evidence import Hold, Role, set_hold, settle
from annotation.store.ledger import CONTROLLER, Change, Ledger
from annotation.store.schema import annotation_versions, annotators, expert_annotations, items
from annotation.store.states import NotAllowed, State
from services.errors import InvalidInput, NotFound, PayloadTooLarge

MAX_VERDICT_BYTES = 16 * 2**20
_NAME = re.compile(r"[A-Za-z0-9:_-]{1,64}")
_EARLY = frozenset({State.ROUTED, State.HELD})


class Recorded(StrEnum):
    """What recording an annotation did."""

    NEW = "new"
    CHANGED = "changed"
    UNCHANGED = "unchanged"  # known, or older than what is known
    IGNORED = "ignored"  # the item was withdrawn


@dataclass(frozen=True)
class Annotations:
    """Recording is idempotent: of one id the later `updated_at` counts, in whatever order they come."""

    ledger: Ledger

    def record(self, annotation: Annotation, who: str = CONTROLLER) -> Recorded:
        """Keep an annotation, end its expert's reservation and move the item on.

        An expert without a reservation, or an unknown one, counts too: Label Studio's community edition lets anyone
        annotate. The annotation of a published item comes with the item; of a judged one, it is judged again.

        Raises:
            NotFound: no such item.
            NotAllowed: the item was never sent, or the annotation's id belongs to another item.
            PayloadTooLarge: the verdict is over 16 MiB.
        """
        key = item_key(annotation.item_id, annotation.kind)
        for field, value in (
            ("annotation.id", annotation.id),
            ("annotation.annotator", annotation.annotator),
        ):
            if not _NAME.fullmatch(value):
                raise InvalidInput("must be 1 to 64 characters of [A-Za-z0-9:_-]", field=field)
        document = _document(annotation.verdict)
        with self.ledger.change(who) as change:
            row = change.lock(key)
            state = State(row["state"])
            if state is State.WITHDRAWN:
                return Recorded.IGNORED
            if state in _EARLY:
                raise NotAllowed(f"an item that is {state} has no task to annotate", field="item")
            return self._record(change, row, annotation, document)

    def _record(
        self, change: Change, row: RowMapping, annotation: Annotation, document: dict[str, Any]
    ) -> Recorded:
        old = _row(change, annotation.id)
        if old is not None:
            if old["item"] != row["key"]:
                raise NotAllowed("this annotation belongs to another item", field="annotation")
            if annotation.updated_at < old["updated_at"]:
                return Recorded.UNCHANGED
            if old["verdict"] == document and old["deleted_at"] is None:
                return Recorded.UNCHANGED
        adjudicator = _known(change, annotation.annotator)
        version = 1 if old is None else old["version"] + 1
        own = {"updated_at": annotation.updated_at, "recorded_at": change.now, "verdict": document}
        values = {
            **own,
            "annotator": annotation.annotator,
            "version": version,
            "seconds": annotation.seconds,
            "adjudication": adjudicator,
            "deleted_at": None,
        }
        if old is None:
            new = {"id": annotation.id, "item": row["key"], "created_at": annotation.created_at, **values}
            change.connection.execute(insert(expert_annotations).values(new))
        else:
            change.connection.execute(
                update(expert_annotations).where(expert_annotations.c.id == annotation.id).values(values)
            )
        change.connection.execute(
            insert(annotation_versions).values(annotation=annotation.id, version=version, **own)
        )
        change.note(
            "annotation",
            row["key"],
            {"version": version - 1},
            {"version": version, "annotation": annotation.id, "annotator": annotation.annotator},
        )
        role = Role.ADJUDICATE if adjudicator else Role.REVIEW
        set_hold(change, row, annotation.annotator, role, Hold.DONE, change.now)
        settle(change, row["key"])
        return Recorded.NEW if old is None else Recorded.CHANGED

    def remove(self, annotation_id: str, who: str = CONTROLLER) -> bool:
        """Note that an annotation was deleted in Label Studio; False where it is unknown or was noted.

        Its expert does not get the item again; somebody else does.
        """
        with self.ledger.change(who) as change:
            old = _row(change, annotation_id)
            if old is None:
                return False
            row = change.lock(old["item"])
            old = _row(change, annotation_id)
            if old is None or old["deleted_at"] is not None:
                return False
            change.connection.execute(
                update(expert_annotations)
                .where(expert_annotations.c.id == annotation_id)
                .values(deleted_at=change.now)
            )
            change.note("annotation", row["key"], {"annotation": annotation_id}, {"deleted": True})
            others = select(expert_annotations.c.id).where(
                expert_annotations.c.item == row["key"],
                expert_annotations.c.annotator == old["annotator"],
                expert_annotations.c.deleted_at.is_(None),
            )
            if change.connection.scalar(others.limit(1)) is None:
                role = Role.ADJUDICATE if old["adjudication"] else Role.REVIEW
                set_hold(change, row, old["annotator"], role, Hold.RELEASED, change.now)
            if State(row["state"]) is not State.WITHDRAWN:
                settle(change, row["key"])
            return True

    def of(self, key: str) -> list[Annotation]:
        """The newest version of every annotation of an item that is not deleted, oldest id first."""
        statement = (
            _versions(annotation_versions.c.version == expert_annotations.c.version)
            .where(expert_annotations.c.item == key, expert_annotations.c.deleted_at.is_(None))
            .order_by(expert_annotations.c.created_at, expert_annotations.c.id)
        )
        with self.ledger.read() as connection:
            return [_annotation(row) for row in connection.execute(statement).mappings()]

    def at(self, versions: Sequence[tuple[str, int]]) -> tuple[Annotation, ...]:
        """Annotations as they were at the given versions, in that order; withdrawn ones are left out."""
        own = annotation_versions.c
        wanted = [(id, version) for id, version in versions]
        statement = _versions(true()).where(tuple_(own.annotation, own.version).in_(wanted))
        with self.ledger.read() as connection:
            found = {row["id"]: _annotation(row) for row in connection.execute(statement).mappings()}
        return tuple(found[id] for id, _ in wanted if id in found)

    def history(self, annotation_id: str) -> list[Verdict]:
        """Every version of an annotation's verdict that was seen, oldest first; none once the item is withdrawn."""
        own = annotation_versions.c
        statement = select(own.verdict).where(own.annotation == annotation_id, own.verdict.is_not(None))
        with self.ledger.read() as connection:
            found = connection.scalars(statement.order_by(own.version)).all()
        return [verdict_from_json(each) for each in found]

    def item_of(self, annotation_id: str) -> str:
        """The key of the item it is about. Raises: NotFound."""
        with self.ledger.read() as connection:
            found = connection.scalar(
                select(expert_annotations.c.item).where(expert_annotations.c.id == annotation_id)
            )
        if found is None:
            raise NotFound("no such annotation", field="annotation")
        return str(found)


def _document(verdict: Verdict) -> dict[str, Any]:
    try:
        text = json.dumps(verdict_to_json(verdict), allow_nan=False)
    except ValueError:
        raise InvalidInput("numbers must be finite", field="verdict.regions") from None
    if len(text) > MAX_VERDICT_BYTES:
        raise PayloadTooLarge("at most 16 MiB with all masks", field="verdict")
    return dict(json.loads(text))


def _row(change: Change, annotation_id: str) -> RowMapping | None:
    statement = select(expert_annotations).where(expert_annotations.c.id == annotation_id)
    return change.connection.execute(statement).mappings().one_or_none()


def _known(change: Change, annotator: str) -> bool:
    """Whether the annotator is an adjudicator; one who is not known yet is noted as inactive."""
    statement = select(annotators.c.adjudicator).where(annotators.c.id == annotator)
    found = change.connection.scalar(statement)
    if found is None:
        new = {"specialities": [], "adjudicator": False, "active": False, "max_open": 0, "max_daily": 0}
        change.connection.execute(
            change.upsert(annotators)
            .values(id=annotator, created_at=change.now, **new)
            .on_conflict_do_nothing()
        )
    return bool(found)


def _versions(which: ColumnElement[bool]) -> Select[Any]:
    own = annotation_versions.c
    return (
        select(
            expert_annotations.c.id,
            expert_annotations.c.annotator,
            expert_annotations.c.created_at,
            expert_annotations.c.seconds,
            own.updated_at,
            own.verdict,
            items.c.id.label("item_id"),
            items.c.kind,
        )
        .join(annotation_versions, (own.annotation == expert_annotations.c.id) & which)
        .join(items, items.c.key == expert_annotations.c.item)
        .where(own.verdict.is_not(None))
    )


def _annotation(row: RowMapping) -> Annotation:
    return Annotation(
        id=row["id"],
        item_id=row["item_id"],
        kind=Kind(row["kind"]),
        annotator=row["annotator"],
        verdict=verdict_from_json(row["verdict"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        seconds=row["seconds"],
    )
