"""Transactions of the review loop: what changes is written together with who changed it, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, RowMapping, Table, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from annotation.store import audit
from annotation.store.audit import Plain
from annotation.store.schema import items
from annotation.store.states import NotAllowed, State, check_move
from services.errors import NotFound
from services.interactions.database import transaction
from services.interactions.schema import interactions

CONTROLLER = "controller"
"""Who acts where nobody is named: the review loop itself."""


@dataclass
class Change:
    """A write transaction under way.

    Locks are taken in one order (annotator, interaction, item, the rest, head of the audit), so changes, and a
    purge of interactions, never wait for each other in a circle. Several items are taken in the order of their keys.
    """

    connection: Connection
    who: str
    now: datetime
    entries: list[audit.Entry] = field(default_factory=list)

    def note(
        self,
        what: str,
        subject: str,
        before: dict[str, Plain] | None = None,
        after: dict[str, Plain] | None = None,
    ) -> None:
        """Put into the audit when the transaction commits."""
        self.entries.append(audit.Entry(self.now, self.who, what, subject, before or {}, after or {}))

    def upsert(self, table: Table) -> Any:
        """An insert that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
        return upsert(self.connection.dialect, table)

    def lock(self, key: str, revision: int | None = None, *, interaction: bool = False) -> RowMapping:
        """The item's row, nobody else's until the transaction ends.

        Args:
            revision: what the caller's decision was based on.
            interaction: keep the item's interaction from being purged as well; needed to write or delete what the
                item says, which a purge deletes too. Without one, the row's `interaction_id` is None.

        Raises:
            NotFound: no such item.
            NotAllowed: it is not at `revision` any more.
        """
        if interaction:
            of = select(items.c.interaction_id).where(items.c.key == key)
            self.connection.execute(
                select(interactions.c.id)
                .where(interactions.c.id == self.connection.scalar(of))
                .with_for_update(read=True, key_share=True)
            )
        # Not the key itself: rows that refer to the item may be written meanwhile.
        statement = select(items).where(items.c.key == key).with_for_update(key_share=True)
        row = self.connection.execute(statement).mappings().one_or_none()
        if row is None:
            raise NotFound("no such item of the review", field="item")
        if revision is not None and row["revision"] != revision:
            raise NotAllowed("the item was changed meanwhile", field="revision")
        return row

    def move(self, row: RowMapping, to: State, **values: Any) -> bool:
        """Change the state of a locked item, and `values` with it. False, and nothing is done, if it is there already.

        Raises:
            NotAllowed: there is no such move.
        """
        now = State(row["state"])
        if not check_move(now, to):
            return False
        self.set(row, state=to, since=self.now, revision=row["revision"] + 1, **values)
        self.note("move", row["key"], {"state": now}, {"state": to, "because": values.get("because", "")})
        return True

    def set(self, row: RowMapping, **values: Any) -> None:
        """Change columns of a locked item."""
        self.connection.execute(
            update(items).where(items.c.key == row["key"]).values(updated_at=self.now, **values)
        )


def upsert(dialect: Dialect, table: Table) -> Any:
    """An insert that knows `on_conflict_do_nothing` and `on_conflict_do_update`, on either database."""
    return postgresql_insert(table) if dialect.name == "postgresql" else sqlite_insert(table)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Ledger:
    """The database as the review loop's parts see it. `clock` gives aware times."""

    engine: Engine
    clock: Callable[[], datetime] = utc_now

    def upsert(self, table: Table) -> Any:
        """As `Change.upsert`, for what is not audited."""
        return upsert(self.engine.dialect, table)

    def read(self) -> AbstractContextManager[Connection]:
        """A connection in a transaction that only reads."""
        return transaction(self.engine, write=False)

    @contextmanager
    def change(self, who: str = CONTROLLER) -> Iterator[Change]:
        """A write transaction: committed at the end together with its audit entries, rolled back on an error."""
        with transaction(self.engine) as connection:
            change = Change(connection, who, self.clock())
            yield change
            audit.append(connection, change.entries)
