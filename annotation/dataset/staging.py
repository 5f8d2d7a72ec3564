"""Judgements between reading and writing, in a SQLite file beside what is built, so that memory does not grow with them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE picture (source TEXT PRIMARY KEY, name TEXT, pixels TEXT, print BLOB, refused TEXT) WITHOUT ROWID;
CREATE TABLE staged (
  key TEXT PRIMARY KEY, interaction TEXT, kind TEXT, rank TEXT, question TEXT, texts TEXT, pictures TEXT,
  patient TEXT, facts TEXT, records TEXT, none TEXT, alike TEXT, held INTEGER, reason TEXT, because TEXT
);
CREATE TABLE dropped (interaction TEXT, kind TEXT, part TEXT, reason TEXT, because TEXT);
"""


@dataclass(frozen=True)
class Staged:
    """A judgement's records and what decides on them.

    Attributes:
        key: interaction and kind; of two judgements with the same one the higher `rank` counts.
        rank: the time of the judgement, then a digest of its content: a total order that follows from the content.
        question: what was asked.
        texts: each of the item's texts and the expert's, for decontamination.
        pictures: digests of the pixels of all its pictures, sorted.
        facts: what the card counts.
        records: (file, record).
        none: (part, reason) of what gave no record.
        alike: two judgements can be duplicates only where this is the same.
    """

    key: str
    interaction: str
    kind: str
    rank: str
    question: str
    texts: list[str]
    pictures: list[str]
    patient: str
    facts: dict[str, Any]
    records: list[tuple[str, dict[str, Any]]]
    none: list[tuple[str, str]]
    alike: str

    def ranked(self, made_at: datetime) -> Staged:
        """The same with its `rank`."""
        content = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return replace(self, rank=f"{made_at.astimezone(UTC).isoformat(timespec='microseconds')} {content}")


_FIELDS = "key, interaction, kind, rank, question, texts, pictures, patient, facts, records, none, alike"
_LISTS = frozenset(
    i
    for i, name in enumerate(_FIELDS.split(", "))
    if name in ("texts", "pictures", "facts", "records", "none")
)


class Staging:
    """One build's file."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        # Nothing here outlives the build: no journal, and 16 MiB of pages in memory.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16384", "temp_store=FILE"):
            self.db.execute(f"PRAGMA {pragma}")
        self.db.executescript(_SCHEMA)
        self.db.execute("BEGIN")

    def drop(self, interaction: str, kind: str, part: str, reason: str, because: str = "") -> None:
        self.db.execute(
            "INSERT INTO dropped VALUES (?, ?, ?, ?, ?)", (interaction, kind, part, reason, because)
        )

    def add(self, staged: Staged) -> None:
        """Keep it, or the one with the same key that is newer; the other is recorded as superseded."""
        there = self.db.execute("SELECT rank FROM staged WHERE key = ?", (staged.key,)).fetchone()
        if there is not None:
            if there[0] == staged.rank:
                return  # the same judgement once more
            self.drop(staged.interaction, staged.kind, "judgement", "superseded", staged.interaction)
            if there[0] > staged.rank:
                return
        values = [getattr(staged, field) for field in _FIELDS.split(", ")]
        packed = [json.dumps(v) if isinstance(v, list | dict) else v for v in values]
        marks = ", ".join("?" * len(packed))
        self.db.execute(f"INSERT OR REPLACE INTO staged ({_FIELDS}) VALUES ({marks})", packed)

    def each(self, order: str = "interaction, kind", where: str = "true") -> Iterator[Staged]:
        """Those not dropped, in order. Dropping the one at hand is allowed."""
        keys = self.db.execute(f"SELECT key FROM staged WHERE reason IS NULL AND {where} ORDER BY {order}")
        for key in keys:  # sorting keys alone takes little room
            yield _unpacked(self.db.execute(f"SELECT {_FIELDS} FROM staged WHERE key = ?", key).fetchone())

    def reject(self, staged: Staged, reason: str, because: str = "") -> None:
        """Drop the whole judgement."""
        self.db.execute(
            "UPDATE staged SET reason = ?, because = ? WHERE key = ?", (reason, because, staged.key)
        )
        self.drop(staged.interaction, staged.kind, "judgement", reason, because)

    def forget(self, staged: Staged, records: list[tuple[str, dict[str, Any]]]) -> None:
        """Keep only these of a judgement's records."""
        self.db.execute(
            "UPDATE staged SET records = ? WHERE key = ?",
            (json.dumps(records), staged.key),
        )

    def hold(self, keys: Iterable[str]) -> None:
        """These are for validation; all others are not."""
        self.db.execute("UPDATE staged SET held = 0")
        self.db.executemany("UPDATE staged SET held = 1 WHERE key = ?", [(key,) for key in keys])

    def held(self, staged: Staged) -> bool:
        return bool(self.db.execute("SELECT held FROM staged WHERE key = ?", (staged.key,)).fetchone()[0])

    def dropped(self) -> Iterator[dict[str, str]]:
        names = ("interaction", "kind", "part", "reason", "because")
        for values in self.db.execute("SELECT DISTINCT * FROM dropped ORDER BY 1, 2, 3, 4, 5"):
            yield dict(zip(names, values, strict=True))

    def dropped_by_reason(self) -> dict[str, int]:
        return dict(
            self.db.execute(
                "SELECT reason, count(*) FROM (SELECT DISTINCT * FROM dropped) GROUP BY reason ORDER BY reason"
            )
        )

    def close(self) -> None:
        self.db.close()


def _unpacked(values: tuple[Any, ...]) -> Staged:
    loaded = [json.loads(v) if i in _LISTS else v for i, v in enumerate(values)]
    return Staged(*loaded)
