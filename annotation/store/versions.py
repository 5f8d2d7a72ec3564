"""Versions of the data set and of the model: what is in them, how they scored, why they were taken or refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from annotation.core import Reason
from annotation.store import audit
from annotation.store.ledger import CONTROLLER, Ledger
from annotation.store.schema import items, version_items, versions
from annotation.store.states import NotAllowed, State
from services.errors import InvalidInput, NotFound

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_BATCH = 500


class What(StrEnum):
    DATA = "data"
    MODEL = "model"


class Status(StrEnum):
    BUILT = "built"  # data: on disk
    CANDIDATE = "candidate"  # model: trained, not decided on
    PROMOTED = "promoted"
    REFUSED = "refused"
    RETIRED = "retired"  # was promoted; another one is now


_DECISIONS = {
    Status.CANDIDATE: {Status.PROMOTED, Status.REFUSED},
    Status.PROMOTED: {Status.RETIRED},
    Status.RETIRED: {Status.PROMOTED},
}


@dataclass(frozen=True)
class Version:
    """
    Attributes:
        id: content digest, or a name.
        parent: DATA: the version before; MODEL: the data-set version it was trained on.
        scores: of the evaluation, by name; JSON.
        why: of the decision, in words; holds no patient text.
        head: the audit as it stood when the version was recorded.
    """

    id: str
    what: What
    parent: str | None
    status: Status
    scores: dict[str, Any]
    why: str
    path: str
    created_at: datetime
    decided_at: datetime | None
    head: audit.Head


@dataclass(frozen=True)
class Versions:
    ledger: Ledger

    def built(
        self,
        id: str,
        contents: Sequence[tuple[str, int]],
        *,
        path: str,
        parent: str | None = None,
        scores: dict[str, Any] | None = None,
        who: str = CONTROLLER,
    ) -> list[str]:
        """Record a data-set version that is on disk; all its items become built, in one transaction.

        Args:
            contents: key and revision of each item whose verdict is in it.

        Returns the keys of items that changed since they were read: the version holds their older verdict, and they
        stay for the next one. Recording a version again changes nothing.

        Raises:
            InvalidInput: a gold item, which must not be in a data set, or a wrong id.
            NotFound: an unknown item.
        """
        revisions = dict(contents)
        with self.ledger.change(who) as change:
            if not self._add(
                change.connection, id, What.DATA, Status.BUILT, parent, path, scores, change.now
            ):
                return []
            changed = []
            for key in sorted(revisions):
                row = change.lock(key)
                if row["reason"] == Reason.GOLD:
                    raise InvalidInput("a gold item must not be in a data set", field="contents")
                if row["revision"] != revisions[key]:
                    changed.append(key)
                elif State(row["state"]) is not State.BUILT:
                    change.move(row, State.BUILT)
            rows = [{"version": id, "item": key} for key in sorted(revisions)]
            if rows:
                change.connection.execute(insert(version_items), rows)
            change.note("version", id, {}, {"what": What.DATA, "items": len(rows), "changed": len(changed)})
        return changed

    def candidate(self, id: str, *, path: str, parent: str | None = None, who: str = CONTROLLER) -> bool:
        """Record a trained model that nobody decided on; False where it is known."""
        with self.ledger.change(who) as change:
            added = self._add(
                change.connection, id, What.MODEL, Status.CANDIDATE, parent, path, None, change.now
            )
            if added:
                change.note("version", id, {}, {"what": What.MODEL, "parent": parent})
            return added

    def _add(
        self,
        connection: Any,
        id: str,
        what: What,
        status: Status,
        parent: str | None,
        path: str,
        scores: dict[str, Any] | None,
        now: datetime,
    ) -> bool:
        if not _ID.fullmatch(id):
            raise InvalidInput("must be 1 to 128 characters of [A-Za-z0-9._:-]", field="version.id")
        head = audit.head(connection)
        found = connection.scalar(
            self.ledger.upsert(versions)
            .values(
                id=id,
                what=what,
                parent=parent,
                status=status,
                scores=scores or {},
                why="",
                path=path,
                created_at=now,
                decided_at=None,
                audit_number=head.number,
                audit_hash=head.hash,
            )
            .on_conflict_do_nothing()
            .returning(versions.c.id)
        )
        return found is not None

    def decide(
        self, id: str, status: Status, why: str, scores: dict[str, Any] | None = None, who: str = CONTROLLER
    ) -> bool:
        """Promote, refuse or retire a model; a promoted one retires the one before it. False where that was done.

        Raises:
            NotFound: no such model.
            NotAllowed: a decision that does not follow from the last one.
            InvalidInput: no reason given, or one over 4,000 characters.
        """
        if not 1 <= len(why) <= 4_000 or "\0" in why:
            raise InvalidInput("1 to 4,000 characters", field="why")
        with self.ledger.change(who) as change:
            # All models, so that two decisions at once cannot promote two.
            locked = select(versions).where(versions.c.what == What.MODEL).order_by(versions.c.id)
            rows = {row.id: row for row in change.connection.execute(locked.with_for_update())}
            row = rows.get(id)
            if row is None:
                raise NotFound("no such model", field="version.id")
            before = Status(row.status)
            if before is status:
                return False
            if status not in _DECISIONS.get(before, set()):
                raise NotAllowed(f"a version that is {before} cannot become {status}", field="status")
            if status is Status.PROMOTED:
                serving = (versions.c.what == What.MODEL) & (versions.c.status == Status.PROMOTED)
                for other in change.connection.scalars(
                    update(versions)
                    .where(serving)
                    .values(status=Status.RETIRED, decided_at=change.now)
                    .returning(versions.c.id)
                ).all():
                    change.note("decide", other, {"status": Status.PROMOTED}, {"status": Status.RETIRED})
            values = {"status": status, "why": why, "decided_at": change.now}
            if scores is not None:
                values["scores"] = scores
            change.connection.execute(update(versions).where(versions.c.id == id).values(values))
            change.note("decide", id, {"status": before}, {"status": status})
        return True

    def get(self, id: str) -> Version:
        """Raises: NotFound."""
        with self.ledger.read() as connection:
            row = connection.execute(select(versions).where(versions.c.id == id)).one_or_none()
        if row is None:
            raise NotFound("no such version", field="version.id")
        return _version(row)

    def all(self, what: What, limit: int = 100) -> list[Version]:
        """The newest first."""
        own = versions.c
        statement = (
            select(versions).where(own.what == what).order_by(own.created_at.desc(), own.id).limit(limit)
        )
        with self.ledger.read() as connection:
            return [_version(row) for row in connection.execute(statement)]

    def serving(self) -> Version | None:
        """The model that was promoted last."""
        own = versions.c
        statement = select(versions).where(own.what == What.MODEL, own.status == Status.PROMOTED)
        with self.ledger.read() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else _version(row)

    def containing(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """Data-set versions that hold items, by item; items in none are left out."""
        wanted, found = sorted(set(keys)), {}  # type: list[str], dict[str, list[str]]
        with self.ledger.read() as connection:
            for start in range(0, len(wanted), _BATCH):
                some = wanted[start : start + _BATCH]
                for row in connection.execute(
                    select(version_items)
                    .where(version_items.c.item.in_(some))
                    .order_by(version_items.c.version)
                ):
                    found.setdefault(row.item, []).append(row.version)
        return found

    def withdrawn_in(self, id: str) -> list[str]:
        """Keys of a data-set version's items that are withdrawn since: the next version must leave them out."""
        statement = (
            select(items.c.key)
            .join(version_items, version_items.c.item == items.c.key)
            .where(version_items.c.version == id, items.c.state == State.WITHDRAWN)
            .order_by(items.c.key)
        )
        with self.ledger.read() as connection:
            return list(connection.scalars(statement))

    def size(self, id: str) -> int:
        """Items in a data-set version."""
        statement = select(func.count()).select_from(version_items).where(version_items.c.version == id)
        with self.ledger.read() as connection:
            return connection.scalar(statement) or 0


def _version(row: Row[Any]) -> Version:
    return Version(
        row.id,
        What(row.what),
        row.parent,
        Status(row.status),
        row.scores,
        row.why,
        row.path,
        row.created_at,
        row.decided_at,
        audit.Head(row.audit_number, row.audit_hash),
    )
