"""Pictures that rows refer to: kept before the rows that need them, cleared when none does any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Engine, Table, delete, exists, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from services.interactions.database import transaction
from services.interactions.pictures import PictureStore

# Longer than any request: a picture is written before what needs it.
GRACE = timedelta(hours=2)
_BATCH = 200


@dataclass(frozen=True)
class Shelf:
    """Files and the two tables that say who needs them.

    Attributes:
        files: where the bytes are.
        pictures: a row a file: `sha256`, `bytes`, `used_at`.
        links: a row for each need of a picture, with its `sha256`.
    """

    engine: Engine
    files: PictureStore
    pictures: Table
    links: Table

    def keep(self, data: Mapping[str, bytes]) -> list[str]:
        """Write pictures by their SHA-256, safe from `clear` until something refers to them or `GRACE` is over.

        Returns the digests in the order in which rows that refer to them must be written.
        """
        # A fixed order, so that two savers of the same pictures cannot wait for each other.
        digests = sorted(data)
        if digests:
            self._claim(data, digests)
            for each in digests:
                self.files.write(each, data[each])
        return digests

    def _claim(self, data: Mapping[str, bytes], digests: list[str]) -> None:
        now = datetime.now(UTC)
        columns = self.pictures.c
        with transaction(self.engine, write=False) as connection:
            claimed = select(columns.sha256).where(
                columns.sha256.in_(digests), columns.used_at > now - GRACE / 2
            )
            unclaimed = set(digests) - set(connection.scalars(claimed))
        if not unclaimed:
            return
        upsert = postgresql_insert if self.engine.dialect.name == "postgresql" else sqlite_insert
        statement = upsert(self.pictures).values(
            [
                {"sha256": each, "bytes": len(data[each]), "used_at": now}
                for each in digests
                if each in unclaimed
            ]
        )
        with transaction(self.engine) as connection:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["sha256"], set_={"used_at": statement.excluded.used_at}
                )
            )

    def clear(self, now: datetime) -> tuple[int, int]:
        """Delete what nothing needs, in small transactions; how many pictures and bytes that were."""
        number = size = 0
        while deleted := self._clear_some(now):
            number += len(deleted)
            size += sum(deleted)
        return number, size

    def _clear_some(self, now: datetime) -> list[int]:
        # The files go while the rows are locked: a save of the same picture waits for the lock, then finds no
        # file and writes it again. A crash before the commit leaves rows, which the next call takes up.
        with transaction(self.engine) as connection:
            candidates = select(self.pictures.c.sha256).where(self._unneeded(now)).limit(_BATCH)
            deleted = connection.execute(
                delete(self.pictures)
                .where(self.pictures.c.sha256.in_(candidates), self._unneeded(now))
                .returning(self.pictures.c.sha256, self.pictures.c.bytes)
            ).all()
            for sha256, _ in deleted:
                self.files.delete(sha256)
        return [size for _, size in deleted]

    def _unneeded(self, now: datetime) -> ColumnElement[bool]:
        needed = exists().where(self.links.c.sha256 == self.pictures.c.sha256)
        return (self.pictures.c.used_at <= now - GRACE) & ~needed
