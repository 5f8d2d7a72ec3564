"""What Label Studio's webhook said, until it is processed: numbers alone, so nothing of a patient waits here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update

from annotation.store.ledger import Ledger
from annotation.store.schema import events
from services.errors import InvalidInput
from services.interactions.database import transaction

_ACTION = re.compile(r"[A-Z_]{1,64}")
_MAX_INT = 2**31 - 1


@dataclass(frozen=True)
class Event:
    """
    Attributes:
        action: `ANNOTATION_CREATED`, …, as Label Studio names it.
        project, task, annotation: Label Studio's numbers; None where the action has none.
    """

    action: str
    project: int
    task: int | None = None
    annotation: int | None = None

    @property
    def key(self) -> str:
        return f"{self.action}:{self.project}:{self.task or ''}:{self.annotation or ''}"


@dataclass(frozen=True)
class Waiting:
    """An event to process. `arrivals` counts how often it came; give the whole back to `done`."""

    id: int
    event: Event
    received_at: datetime
    arrivals: int
    attempts: int


@dataclass(frozen=True)
class Inbox:
    """At least once: what arrives again before it is processed waits once; afterwards, it waits again.

    Processing reads the annotation from Label Studio, so doing it twice is harmless and doing it late finds the newest.
    """

    ledger: Ledger

    def add(self, arrived: Iterable[Event]) -> None:
        """Keep events; on disk when this returns. One transaction, a few milliseconds.

        Raises:
            InvalidInput: an action or number that Label Studio cannot have sent.
        """
        unique = {each.key: each for each in arrived}
        for each in unique.values():
            numbers = (each.project, each.task, each.annotation)
            if not _ACTION.fullmatch(each.action):
                raise InvalidInput("must be 1 to 64 capital letters and underscores", field="action")
            if not all(number is None or 0 < number <= _MAX_INT for number in numbers):
                raise InvalidInput("numbers must be 1 to 2,147,483,647", field="event")
        if not unique:
            return
        # Not audited: an event decides nothing, and the webhook must not wait for the audit's lock.
        with transaction(self.ledger.engine) as connection:
            now = self.ledger.clock()
            rows = [
                {**vars(each), "key": key, "received_at": now, "arrivals": 1, "attempts": 0, "error": ""}
                for key, each in sorted(unique.items())
            ]
            statement = self.ledger.upsert(events).values(rows)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["key"],
                    set_={
                        "arrivals": events.c.arrivals + 1,
                        "received_at": statement.excluded.received_at,
                        "processed_at": None,
                    },
                )
            )

    def waiting(self, limit: int = 100) -> list[Waiting]:
        """Events to process, oldest first; those that failed come after those that did not."""
        statement = (
            select(events)
            .where(events.c.processed_at.is_(None))
            .order_by(events.c.attempts, events.c.id)
            .limit(limit)
        )
        with self.ledger.read() as connection:
            return [
                Waiting(
                    row.id,
                    Event(row.action, row.project, row.task, row.annotation),
                    row.received_at,
                    row.arrivals,
                    row.attempts,
                )
                for row in connection.execute(statement)
            ]

    def done(self, waiting: Waiting) -> bool:
        """The event is processed; False where it arrived again meanwhile, and so goes on waiting."""
        return self._set(waiting, processed_at=self.ledger.clock(), error="")

    def failed(self, waiting: Waiting, code: str) -> None:
        """Processing failed with an error of this `code`; the event goes on waiting."""
        self._set(waiting, attempts=waiting.attempts + 1, error=code[:64])

    def _set(self, waiting: Waiting, **values: object) -> bool:
        unchanged = (events.c.id == waiting.id) & (events.c.arrivals == waiting.arrivals)
        with transaction(self.ledger.engine) as connection:
            return connection.execute(update(events).where(unchanged).values(**values)).rowcount == 1
