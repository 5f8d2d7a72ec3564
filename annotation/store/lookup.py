"""Looking items up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, tuple_

from annotation.core import Item, Kind, Reason, Verdict
from annotation.store.codec import item_from_json, verdict_from_json
from annotation.store.entries import Entry
from annotation.store.ledger import Ledger
from annotation.store.schema import contents, gold, item_pictures, items
from annotation.store.states import State
from services.errors import NotFound
from services.interactions.shelf import Shelf


@dataclass(frozen=True)
class Lookup:
    """What is known of items, and what is kept of what they say."""

    ledger: Ledger
    shelf: Shelf

    def get(self, key: str) -> Entry:
        """Where the item is. Raises: NotFound."""
        with self.ledger.read() as connection:
            row = connection.execute(select(items).where(items.c.key == key)).mappings().one_or_none()
        if row is None:
            raise NotFound("no such item of the review", field="item")
        return Entry.of(row)

    def load(self, key: str, *, pictures: bool = False) -> Item:
        """The cleaned item, never with a gold verdict; its pictures' bytes where asked for.

        Raises:
            NotFound: no such item, or nothing is kept of it: not cleaned yet, held or withdrawn.
        """
        with self.ledger.read() as connection:
            row = connection.execute(
                select(contents.c.document, items.c.speciality, items.c.risk, items.c.reason)
                .join(items, items.c.key == contents.c.item)
                .where(contents.c.item == key, contents.c.document.is_not(None))
            ).one_or_none()
            if row is None:
                raise NotFound("nothing is kept of this item", field="item")
            digests = connection.scalars(
                select(item_pictures.c.sha256).where(item_pictures.c.item == key)
            ).all()
        files = {each: self.shelf.files.read(each) for each in digests} if pictures else {}
        return item_from_json(
            row.document,
            speciality=row.speciality,
            risk=row.risk,
            reason=Reason(row.reason),
            pictures=files,
        )

    def report(self, key: str) -> dict[str, Any]:
        """What de-identification said of the item; empty where nothing is kept."""
        with self.ledger.read() as connection:
            found = connection.scalar(select(contents.c.report).where(contents.c.item == key))
        return dict(found or {})

    def gold_verdict(self, key: str) -> Verdict:
        """The right verdict of a gold item, to score experts with. Raises: NotFound."""
        with self.ledger.read() as connection:
            found = connection.scalar(select(gold.c.verdict).where(gold.c.item == key))
        if found is None:
            raise NotFound("no gold item with this key", field="item")
        return verdict_from_json(found)

    def page(self, state: State, after: Entry | None = None, limit: int = 100) -> list[Entry]:
        """Items in a state, those that wait longest first; `after` the last of the page before."""
        statement = select(items).where(items.c.state == state)
        if after is not None:
            statement = statement.where(tuple_(items.c.since, items.c.key) > (after.since, after.key))
        with self.ledger.read() as connection:
            rows = connection.execute(statement.order_by(items.c.since, items.c.key).limit(limit)).mappings()
            return [Entry.of(row) for row in rows]

    def gold_page(self, after: Entry | None = None, limit: int = 100) -> list[Entry]:
        """Gold items in whatever state, in the order of their keys."""
        statement = select(items).join(gold, gold.c.item == items.c.key)
        if after is not None:
            statement = statement.where(items.c.key > after.key)
        with self.ledger.read() as connection:
            rows = connection.execute(statement.order_by(items.c.key).limit(limit)).mappings()
            return [Entry.of(row) for row in rows]

    def by_task(self, project: int, task: int) -> Entry | None:
        """The item that a task of Label Studio is."""
        statement = select(items).where(items.c.ls_project == project, items.c.ls_task == task)
        with self.ledger.read() as connection:
            row = connection.execute(statement).mappings().one_or_none()
        return None if row is None else Entry.of(row)

    def withdrawn_tasks(self, limit: int = 100) -> list[Entry]:
        """Withdrawn items whose task is still in Label Studio: delete it there, then `task_gone`."""
        statement = (
            select(items)
            .where(items.c.state == State.WITHDRAWN, items.c.ls_task.is_not(None))
            .order_by(items.c.since)
            .limit(limit)
        )
        with self.ledger.read() as connection:
            return [Entry.of(row) for row in connection.execute(statement).mappings()]

    def sent_digests(self, digests: Iterable[str]) -> dict[tuple[Kind, str], str]:
        """Of those of `digests` that items have: by kind and digest, the id of one such item."""
        wanted = sorted(set(digests) - {""})
        found: dict[tuple[Kind, str], str] = {}
        with self.ledger.read() as connection:
            for start in range(0, len(wanted), 1_000):
                statement = select(items.c.kind, items.c.digest, items.c.id).where(
                    items.c.digest.in_(wanted[start : start + 1_000])
                )
                found |= {(Kind(kind), digest): id for kind, digest, id in connection.execute(statement)}
        return found
