"""Counts that routing and `status` need; each query stays fast at a hundred thousand items."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, exists, func, literal_column, select

from annotation.core import Decision, Kind, Reason
from annotation.store.ledger import Ledger
from annotation.store.schema import annotators, events, expert_annotations, items, judgements, reservations
from annotation.store.states import State

# What somebody or something has still to be done with.
WAITING = (
    State.ROUTED,
    State.HELD,
    State.CLEANED,
    State.PUBLISHED,
    State.COLLECTED,
    State.ADJUDICATION,
    State.JUDGED,
)


@dataclass(frozen=True)
class Throughput:
    """Of one UTC day."""

    routed: int = 0
    annotations: int = 0
    judged: int = 0


@dataclass(frozen=True)
class Workload:
    """One annotator's: reservations held now, items done since midnight UTC and in all, seconds over all of them."""

    held: int
    today: int
    done: int
    seconds: float


@dataclass(frozen=True)
class Figures:
    ledger: Ledger

    def counts(self) -> dict[State, dict[Kind, int]]:
        """Items in each state, by kind; states and kinds without items are left out."""
        found: dict[State, dict[Kind, int]] = {}
        statement = select(items.c.state, items.c.kind, func.count()).group_by(items.c.state, items.c.kind)
        with self.ledger.read() as connection:
            for state, kind, number in connection.execute(statement):
                found.setdefault(State(state), {})[Kind(kind)] = number
        return found

    def spent(self, day: date | None = None) -> dict[tuple[Reason, Kind, str], int]:
        """Items routed on a UTC day (default: today), by reason, kind and speciality."""
        begin = self._midnight(day)
        statement = (
            select(items.c.kind, items.c.speciality, items.c.reason, func.count())
            .where(items.c.created_at >= begin, items.c.created_at < begin + timedelta(days=1))
            .group_by(items.c.kind, items.c.speciality, items.c.reason)
        )
        with self.ledger.read() as connection:
            return {
                (Reason(reason), Kind(kind), speciality): number
                for kind, speciality, reason, number in connection.execute(statement)
            }

    def oldest(self) -> dict[State, datetime]:
        """Since when the longest waiting item of each state waits; gold items, which always wait, aside."""
        found = {}
        with self.ledger.read() as connection:
            for state in WAITING:
                since = connection.scalar(
                    select(items.c.since)
                    .where(items.c.state == state, items.c.reason != Reason.GOLD)
                    .order_by(items.c.since)
                    .limit(1)
                )
                if since is not None:
                    found[state] = since
        return found

    def throughput(self, days: int = 14) -> dict[date, Throughput]:
        """Of the last `days` UTC days, today among them, oldest first; every day is there."""
        today = self.ledger.clock().astimezone(UTC).date()
        dates = [today - timedelta(days=back) for back in reversed(range(days))]
        begin = self._midnight(dates[0])
        columns = {
            "routed": items.c.created_at,
            "annotations": expert_annotations.c.recorded_at,
            "judged": judgements.c.made_at,
        }
        counted: dict[str, dict[date, int]] = {}
        with self.ledger.read() as connection:
            for name, column in columns.items():
                day = self._day(column)
                rows = connection.execute(select(day, func.count()).where(column >= begin).group_by(day))
                counted[name] = {_as_date(each): number for each, number in rows}
        return {day: Throughput(**{name: counted[name].get(day, 0) for name in columns}) for day in dates}

    def decisions(self) -> dict[str, dict[Decision, int]]:
        """Items by modality and what was decided of them last; withdrawn ones count as well."""
        newer = judgements.alias()
        last = ~exists().where(newer.c.item == judgements.c.item, newer.c.number > judgements.c.number)
        statement = (
            select(items.c.modality, judgements.c.decision, func.count())
            .join(items, items.c.key == judgements.c.item)
            .where(last, judgements.c.decision.is_not(None))
            .group_by(items.c.modality, judgements.c.decision)
        )
        found: dict[str, dict[Decision, int]] = {}
        with self.ledger.read() as connection:
            for modality, decision, number in connection.execute(statement):
                found.setdefault(modality, {})[Decision(decision)] = number
        return found

    def agreement(self, days: int = 14) -> dict[date, float]:
        """Mean agreement of the experts on what was judged on each of the last UTC days; days without any are left out."""
        begin = self._midnight(self.ledger.clock().astimezone(UTC).date() - timedelta(days=days - 1))
        day = self._day(judgements.c.made_at)
        statement = (
            select(day, func.avg(judgements.c.agreement))
            .where(judgements.c.made_at >= begin, judgements.c.agreement.is_not(None))
            .group_by(day)
            .order_by(day)
        )
        with self.ledger.read() as connection:
            return {_as_date(each): float(mean) for each, mean in connection.execute(statement)}

    def workloads(self) -> dict[str, Workload]:
        """Of every annotator who ever held or did something, by id."""
        begin = self._midnight(None)
        live = expert_annotations.c.deleted_at.is_(None)
        today = func.sum(case((expert_annotations.c.recorded_at >= begin, 1), else_=0))
        done = (
            select(
                expert_annotations.c.annotator,
                func.count().label("done"),
                today.label("today"),
                func.sum(expert_annotations.c.seconds).label("seconds"),
            )
            .where(live)
            .group_by(expert_annotations.c.annotator)
        )
        held = (
            select(reservations.c.annotator, func.count())
            .where(reservations.c.state == "held", reservations.c.until > self.ledger.clock())
            .group_by(reservations.c.annotator)
        )
        with self.ledger.read() as connection:
            holding: dict[str, int] = {row[0]: row[1] for row in connection.execute(held)}
            did = {row.annotator: row for row in connection.execute(done)}
            known = connection.scalars(select(annotators.c.id).order_by(annotators.c.id)).all()
        return {
            each: Workload(
                holding.get(each, 0),
                int(did[each].today) if each in did else 0,
                did[each].done if each in did else 0,
                float(did[each].seconds) if each in did else 0.0,
            )
            for each in known
            if each in holding or each in did
        }

    def inbox(self) -> tuple[int, int]:
        """Events that wait, and those of them that failed before."""
        failed = func.coalesce(func.sum(case((events.c.attempts > 0, 1), else_=0)), 0)
        statement = select(func.count(), failed).where(events.c.processed_at.is_(None))
        with self.ledger.read() as connection:
            waiting, bad = connection.execute(statement).one()
        return waiting, int(bad)

    def _midnight(self, day: date | None) -> datetime:
        return datetime.combine(day or self.ledger.clock().astimezone(UTC).date(), time.min, UTC)

    def _day(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        postgres = self.ledger.engine.dialect.name == "postgresql"
        # A literal: as a parameter it would make the grouped expression another one than the selected.
        return func.date(func.timezone(literal_column("'UTC'"), column)) if postgres else func.date(column)


def _as_date(value: date | str) -> date:
    return date.fromisoformat(value) if isinstance(value, str) else value
