"""What the verdicts on an item come to, and what the next data-set version is built from."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from annotation.core import Annotation, Judgement, Reason
from annotation.store.annotations import Annotations
from annotation.store.codec import verdict_from_json, verdict_to_json
from annotation.store.entries import Entry, item_key
from annotation.store.evidence import verdicts
from annotation.store.items import MAX_WANTED, Items
from annotation.store.ledger import CONTROLLER, Ledger
from annotation.store.schema import annotation_versions, items, judgements
from annotation.store.states import State
from services.errors import InvalidInput, NotFound


@dataclass(frozen=True)
class Judgements:
    """Each decision names the revision of the item it was based on, and is refused (`NotAllowed`) at another one."""

    ledger: Ledger
    items: Items
    annotations: Annotations

    def save(self, judgement: Judgement, revision: int, who: str = CONTROLLER) -> bool:
        """The item is judged; False where it was."""
        key = item_key(judgement.item.id, judgement.item.kind)
        with self.ledger.change(who) as change:
            row = change.lock(key)
            if State(row["state"]) is State.JUDGED:
                return False
            change.lock(key, revision)
            made_from = [[each.id, self._version(change.connection, each)] for each in judgement.annotations]
            change.move(row, State.JUDGED)
            newest = select(func.coalesce(func.max(judgements.c.number), 0)).where(judgements.c.item == key)
            number = (change.connection.scalar(newest) or 0) + 1
            change.connection.execute(
                insert(judgements).values(
                    item=key,
                    number=number,
                    made_at=judgement.made_at,
                    agreement=judgement.agreement,
                    adjudicated=judgement.adjudicated,
                    decision=judgement.verdict.decision,
                    annotations=made_from,
                    verdict=verdict_to_json(judgement.verdict),
                )
            )
            change.note(
                "judge",
                key,
                {"number": number - 1},
                {
                    "number": number,
                    "decision": judgement.verdict.decision,
                    "agreement": judgement.agreement,
                    "adjudicated": judgement.adjudicated,
                    "annotations": len(made_from),
                },
            )
        return True

    @staticmethod
    def _version(connection: Connection, annotation: Annotation) -> int:
        own = annotation_versions.c
        found = connection.scalar(
            select(func.max(own.version)).where(
                own.annotation == annotation.id, own.updated_at == annotation.updated_at
            )
        )
        if found is None:
            raise InvalidInput(
                "was made from an annotation that is not recorded", field="judgement.annotations"
            )
        return int(found)

    def need_more(self, key: str, revision: int, missing: int = 1, who: str = CONTROLLER) -> bool:
        """`missing` more experts are wanted; False where the item waits for them already."""
        if not 1 <= missing <= MAX_WANTED:
            raise InvalidInput("must be 1 to 1,000", field="missing")
        with self.ledger.change(who) as change:
            row = change.lock(key)
            if State(row["state"]) is State.PUBLISHED:
                return False
            change.lock(key, revision)
            experts, _ = verdicts(change, key)
            return change.move(row, State.PUBLISHED, wanted=min(experts + missing, MAX_WANTED))

    def adjudicate(self, key: str, revision: int, who: str = CONTROLLER) -> bool:
        """The experts disagree: an adjudicator must decide; False where one is asked already."""
        with self.ledger.change(who) as change:
            row = change.lock(key)
            if State(row["state"]) is State.ADJUDICATION:
                return False
            change.lock(key, revision)
            return change.move(row, State.ADJUDICATION)

    def current(self, key: str) -> Judgement:
        """The newest judgement of an item, its pictures without bytes.

        Raises:
            NotFound: never judged, or withdrawn.
        """
        with self.ledger.read() as connection:
            newest = select(judgements).where(judgements.c.item == key).order_by(judgements.c.number.desc())
            row = connection.execute(newest.limit(1)).mappings().one_or_none()
        if row is None or row["verdict"] is None:
            raise NotFound("no judgement of this item", field="item")
        return Judgement(
            item=self.items.load(key),
            verdict=verdict_from_json(row["verdict"]),
            annotations=self.annotations.at(row["annotations"]),
            agreement=row["agreement"],
            adjudicated=row["adjudicated"],
            made_at=row["made_at"],
        )

    def to_build(self, after: Entry | None = None, limit: int = 100) -> list[tuple[Entry, Judgement]]:
        """Judged items, gold ones aside, in the order of their keys: what the next data-set version adds or changes."""
        return self._page((State.JUDGED,), after, limit)

    def standing(self, after: Entry | None = None, limit: int = 100) -> list[tuple[Entry, Judgement]]:
        """Judged and built items, gold ones aside, in the order of their keys: all that a data-set version holds."""
        return self._page((State.JUDGED, State.BUILT), after, limit)

    def _page(
        self, states: tuple[State, ...], after: Entry | None, limit: int
    ) -> list[tuple[Entry, Judgement]]:
        statement = select(items).where(items.c.state.in_(states), items.c.reason != Reason.GOLD)
        if after is not None:
            statement = statement.where(items.c.key > after.key)
        with self.ledger.read() as connection:
            rows = connection.execute(statement.order_by(items.c.key).limit(limit)).mappings().all()
        found = []
        for row in rows:
            entry = Entry.of(row)
            try:
                found.append((entry, self.current(entry.key)))
            except NotFound:
                continue  # withdrawn between the two reads, or its interaction purged: `Retention.sweep` is next
        return found
