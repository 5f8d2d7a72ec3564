"""What must go: items whose interaction expired, was purged, or has no consent any more; and their pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, select

from annotation.core import Reason
from annotation.store.ledger import CONTROLLER, Ledger
from annotation.store.schema import events, items
from annotation.store.states import Because, State
from annotation.store.versions import Versions
from annotation.store.withdrawal import withdraw
from services.interactions.database import transaction
from services.interactions.schema import interactions
from services.interactions.shelf import GRACE, Shelf

_BATCH = 200
EVENTS_KEPT = timedelta(days=30)
"""After they were processed."""


@dataclass
class Swept:
    """
    Attributes:
        withdrawn: items.
        versions: data-set versions on disk that hold some of them, and how many.
    """

    withdrawn: int = 0
    pictures: int = 0
    picture_bytes: int = 0
    unfinished_files: int = 0
    versions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Retention:
    ledger: Ledger
    shelf: Shelf
    versions: Versions

    def sweep(self, now: datetime | None = None, who: str = CONTROLLER) -> Swept:
        """Withdraw what must go by `now` and delete pictures that nothing needs; small transactions, safe to repeat.

        A purge of interactions deletes what items say by itself, through the database's foreign keys; this does the
        rest. Pictures go two hours after they were written at the earliest, for their item may be on its way.
        """
        now = now or self.ledger.clock()
        swept = Swept()
        for because, statement in _due(now):
            while keys := self._some(statement):
                for holding in self.versions.containing(keys).values():
                    for version in holding:
                        swept.versions[version] = swept.versions.get(version, 0) + 1
                for key in keys:
                    with self.ledger.change(who) as change:
                        swept.withdrawn += withdraw(change, key, because)
        with transaction(self.ledger.engine) as connection:
            connection.execute(delete(events).where(events.c.processed_at < now - EVENTS_KEPT))
        swept.pictures, swept.picture_bytes = self.shelf.clear(now)
        swept.unfinished_files = self.shelf.files.sweep(now - GRACE)
        return swept

    def _some(self, statement: Select[tuple[str]]) -> list[str]:
        with self.ledger.read() as connection:
            return list(connection.scalars(statement.limit(_BATCH)))


def _due(now: datetime) -> list[tuple[Because, Select[tuple[str]]]]:
    kept = select(items.c.key).where(items.c.state != State.WITHDRAWN)
    of = kept.join(interactions, interactions.c.id == items.c.interaction_id)
    return [
        (Because.CONSENT, of.where(~interactions.c.consent_training)),
        (Because.EXPIRED, of.where(interactions.c.expires_at <= now)),
        (Because.EXPIRED, kept.where(items.c.interaction_id.is_(None), items.c.reason != Reason.GOLD)),
    ]
