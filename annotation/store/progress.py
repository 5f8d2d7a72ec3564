"""How far the controller is: cursors, leases of its steps, and the calibration in force."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, insert, or_, select, update

from annotation.store.ledger import CONTROLLER, Ledger
from annotation.store.schema import calibrations, cursors, steps
from services.errors import InvalidInput
from services.interactions.database import transaction


@dataclass(frozen=True)
class Step:
    """
    Attributes:
        holder: who is at it, until `until`; empty where nobody is.
        done, failed: items, of the last run that finished.
        error: code of that run's last error; empty where there was none.
    """

    name: str
    holder: str
    until: datetime
    started_at: datetime
    finished_at: datetime | None
    done: int
    failed: int
    error: str


@dataclass(frozen=True)
class Calibration:
    """
    Attributes:
        parameters: of the fitted curve, JSON.
        ece: expected calibration error, 0 to 1; None where it was not measured.
        verdicts: that it was fitted on.
    """

    made_at: datetime
    method: str
    parameters: dict[str, Any]
    ece: float | None
    verdicts: int


@dataclass(frozen=True)
class Progress:
    ledger: Ledger

    def cursor(self, name: str) -> Any:
        """The JSON value that was kept under this name; None where none was."""
        with self.ledger.read() as connection:
            return connection.scalar(select(cursors.c.value).where(cursors.c.name == name))

    def set_cursor(self, name: str, value: Any) -> None:
        """Keep a JSON value. Set it after what it stands for is done: a repeat is harmless, a gap is not."""
        with transaction(self.ledger.engine) as connection:
            new = {"value": value, "updated_at": self.ledger.clock()}
            connection.execute(
                self.ledger.upsert(cursors)
                .values(name=name, **new)
                .on_conflict_do_update(index_elements=["name"], set_=new)
            )

    def begin(self, step: str, holder: str, lease: timedelta) -> bool:
        """Take a step for `holder`, or prolong its lease; False while somebody else's lease lasts.

        A holder that was killed lets go of the step when its lease is over.
        """
        if not holder:
            raise InvalidInput("must not be empty", field="holder")
        with transaction(self.ledger.engine) as connection:
            now = self.ledger.clock()
            new = {"holder": holder, "until": now + lease, "started_at": now}
            statement = self.ledger.upsert(steps).values(name=step, done=0, failed=0, error="", **new)
            taken = statement.on_conflict_do_update(
                index_elements=["name"],
                set_=new,
                where=or_(steps.c.holder.in_(["", holder]), steps.c.until <= now),
            ).returning(steps.c.name)
            return connection.scalar(taken) is not None

    def finish(self, step: str, holder: str, done: int = 0, failed: int = 0, error: str = "") -> bool:
        """End the holder's run of a step; False where its lease had passed to somebody else."""
        own = (steps.c.name == step) & (steps.c.holder == holder)
        with transaction(self.ledger.engine) as connection:
            statement = (
                update(steps)
                .where(own)
                .values(
                    holder="", finished_at=self.ledger.clock(), done=done, failed=failed, error=error[:64]
                )
            )
            return connection.execute(statement).rowcount == 1

    def steps(self) -> dict[str, Step]:
        """Every step that ever began, by name."""
        with self.ledger.read() as connection:
            return {row.name: Step(**row._mapping) for row in connection.execute(select(steps))}

    def calibrate(self, calibration: Calibration, who: str = CONTROLLER) -> None:
        """Put a fitted calibration in force; earlier ones stay on record."""
        with self.ledger.change(who) as change:
            change.connection.execute(insert(calibrations).values(**vars(calibration)))
            change.note(
                "calibrate",
                "calibration",
                {},
                {"method": calibration.method, "ece": calibration.ece, "verdicts": calibration.verdicts},
            )

    def calibration(self) -> Calibration | None:
        """The one in force; None before the first."""
        with self.ledger.read() as connection:
            row = connection.execute(
                select(calibrations).order_by(calibrations.c.id.desc()).limit(1)
            ).one_or_none()
        return None if row is None else _calibration(row)


def _calibration(row: Row[Any]) -> Calibration:
    return Calibration(row.made_at, row.method, row.parameters, row.ece, row.verdicts)
