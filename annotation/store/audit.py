"""Who did what to which item, and when: only ever appended to, each entry holding a hash over all before it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, RowMapping, insert, select, update

from annotation.store.schema import audit, audit_head, versions
from services.interactions.database import transaction

Plain = str | int | float | bool | None
"""What an entry may hold: numbers and single words, so that no patient's words can be among them."""

GENESIS = "0" * 64
_WORD = re.compile(r"[A-Za-z0-9._:+/@-]{0,128}")
_PAGE = 2_000


@dataclass(frozen=True)
class Entry:
    """One decision, before it has a place in the chain."""

    at: datetime
    who: str
    what: str
    subject: str
    before: dict[str, Plain] = field(default_factory=dict)
    after: dict[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = (self.who, self.what, self.subject, *self.before.values(), *self.after.values())
        if not all(_WORD.fullmatch(value) for value in values if isinstance(value, str)):
            raise ValueError("an entry of the audit takes single words and numbers alone")

    def hash(self, number: int, previous: str) -> str:
        """SHA-256, hex."""
        said = [
            previous,
            number,
            self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            self.who,
            self.what,
            self.subject,
            self.before,
            self.after,
        ]
        return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Head:
    """How far the audit goes; `hash` covers every entry up to `number`."""

    number: int = 0
    hash: str = GENESIS


@dataclass(frozen=True)
class Verified:
    """What `verify` found: `broken_at` is the number of the first entry that is wrong or missing, None if all are right."""

    entries: int
    broken_at: int | None


def append(connection: Connection, entries: Sequence[Entry]) -> None:
    """Add entries at the end. Must be the last thing that a transaction does: it locks out other writers."""
    if not entries:
        return
    head = connection.execute(select(audit_head).with_for_update()).one()
    number, previous, rows = head.number, head.hash, []
    for entry in entries:
        number += 1
        previous = entry.hash(number, previous)
        rows.append({"number": number, "hash": previous, **vars(entry)})
    connection.execute(insert(audit), rows)
    connection.execute(update(audit_head).values(number=number, hash=previous))


def head(connection: Connection) -> Head:
    """The newest entry's place and hash."""
    row = connection.execute(select(audit_head.c.number, audit_head.c.hash)).one()
    return Head(row.number, row.hash)


@dataclass(frozen=True)
class Audit:
    """Reading the audit."""

    engine: Engine

    def of(self, subject: str) -> list[Entry]:
        """What was done to one item, annotator or version, oldest first."""
        with transaction(self.engine, write=False) as connection:
            rows = connection.execute(
                select(audit).where(audit.c.subject == subject).order_by(audit.c.number)
            ).mappings()
            return [_entry(row) for row in rows]

    def head(self) -> Head:
        """How far it goes now. Kept elsewhere, it lets `verify` notice even a chain that was rewritten whole."""
        with transaction(self.engine, write=False) as connection:
            return head(connection)

    def verify(self, known: Sequence[Head] = ()) -> Verified:
        """Recompute every hash, and compare with the head, with what versions recorded, and with `known` heads.

        Memory stays flat; some 100,000 entries a second.
        """
        with transaction(self.engine, write=False) as connection:
            end = head(connection)
            anchors = {
                row.audit_number: row.audit_hash
                for row in connection.execute(select(versions.c.audit_number, versions.c.audit_hash))
            }
        anchors |= {end.number: end.hash, **{each.number: each.hash for each in known}}
        anchors.pop(0, None)
        number, previous = 0, GENESIS
        for row in self._rows(end.number):
            number += 1
            entry_hash = _entry(row).hash(number, previous)
            if (
                row["number"] != number
                or row["hash"] != entry_hash
                or anchors.pop(number, entry_hash) != entry_hash
            ):
                return Verified(number - 1, number)
            previous = entry_hash
        return Verified(number, number + 1 if anchors else None)

    def _rows(self, last: int) -> Iterator[RowMapping]:
        number = 0
        while True:
            with transaction(self.engine, write=False) as connection:
                page = (
                    connection.execute(
                        select(audit)
                        .where(audit.c.number > number, audit.c.number <= last)
                        .order_by(audit.c.number)
                        .limit(_PAGE)
                    )
                    .mappings()
                    .all()
                )
            if not page:
                return
            yield from page
            number = page[-1]["number"]


def _entry(row: RowMapping) -> Entry:
    entry = object.__new__(Entry)  # as it is, also where somebody put words into it
    for name in ("at", "who", "what", "subject", "before", "after"):
        object.__setattr__(entry, name, row[name])
    return entry
