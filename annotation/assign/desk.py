"""Gives experts items, one expert a slot, and takes back what they do not finish."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time

from sqlalchemy import ColumnElement, RowMapping, and_, exists, func, select

from annotation.assign.crew import Annotator, as_annotator
from annotation.assign.policy import AssignPolicy
from annotation.core import Kind, Reason
from annotation.store.evidence import Hold, Role, hold_of, set_hold
from annotation.store.ledger import Change, Ledger
from annotation.store.schema import annotators, items, reservations
from annotation.store.states import State
from services.errors import NotFound

_GOLD_CHOICE = 50
_EXPIRE_BATCH = 100


@dataclass(frozen=True)
class Reservation:
    """An item that one expert alone works on until `until`, UTC. Does not tell why the item is reviewed.

    Attributes:
        item: its key.
        project, task: Label Studio's numbers.
    """

    item: str
    kind: Kind
    project: int
    task: int
    annotator: str
    adjudication: bool
    until: datetime


class Desk:
    """Any number of processes may run one over the same database.

    An item never has more experts, holding it or done, than are wanted, except where one whose time was over sends a
    verdict all the same. Nobody gets an item again that he annotated or released.

    Args:
        chance: numbers in [0, 1) that decide who gets a gold item.
    """

    def __init__(
        self, ledger: Ledger, policy: AssignPolicy | None = None, chance: Callable[[], float] = random.random
    ) -> None:
        self._ledger = ledger
        self._policy = policy or AssignPolicy()
        self._chance = chance

    def next_item(self, annotator_id: str) -> Reservation | None:
        """Reserve the next item for an expert; None where there is none, or the expert's limits are reached.

        Flagged items come first, then the oldest. An adjudicator gets conflicts alone.

        Raises:
            NotFound: no such annotator.
        """
        self.expire()
        with self._ledger.change(annotator_id) as change:
            # Held until the end, so that an expert's two windows cannot take one item, or one too many.
            row = change.connection.execute(
                select(annotators).where(annotators.c.id == annotator_id).with_for_update(key_share=True)
            ).one_or_none()
            if row is None:
                raise NotFound("no such annotator", field="annotator")
            annotator = as_annotator(row)
            if not annotator.active or not annotator.specialities or self._busy(change, annotator):
                return None
            item = self._pick(change, annotator)
            if item is None:
                return None
            role = Role.ADJUDICATE if annotator.adjudicator else Role.REVIEW
            until = change.now + self._policy.lease
            set_hold(change, item, annotator.id, role, Hold.HELD, until)
            return _reservation(item, annotator.id, role, until)

    @staticmethod
    def _busy(change: Change, annotator: Annotator) -> bool:
        own = reservations.c
        midnight = datetime.combine(change.now.astimezone(UTC).date(), time.min, UTC)
        held = func.count().filter(own.state == Hold.HELD, own.until > change.now)
        today = func.count().filter(own.state.in_([Hold.HELD, Hold.DONE]), own.created_at >= midnight)
        now_held, of_today = change.connection.execute(
            select(held, today).where(own.annotator == annotator.id)
        ).one()
        return bool(now_held >= annotator.max_open or of_today >= annotator.max_daily)

    def _pick(self, change: Change, annotator: Annotator) -> RowMapping | None:
        fit = _fits(annotator)
        queue = select(items).where(fit, items.c.reason != Reason.GOLD)
        queue = queue.order_by(items.c.rank, items.c.created_at, items.c.key).limit(1)
        found = None
        # What another expert is being given is passed over; if nothing else is left, wait whether it stays free.
        for skip in (True, False):
            locked = queue.with_for_update(of=items, key_share=True, skip_locked=skip)
            found = change.connection.execute(locked).mappings().one_or_none()
            if found is not None:
                break
        # A gold item only instead of another one: alone in an empty queue it would give itself away.
        if found is None or annotator.adjudicator or self._chance() >= self._policy.gold_share:
            return found
        return self._gold(change, fit) or found

    def _gold(self, change: Change, fit: ColumnElement[bool]) -> RowMapping | None:
        statement = select(items.c.key).where(fit, items.c.reason == Reason.GOLD)
        keys = change.connection.scalars(statement.order_by(items.c.key).limit(_GOLD_CHOICE)).all()
        if not keys:
            return None
        key = keys[min(int(self._chance() * len(keys)), len(keys) - 1)]
        locked = select(items).where(items.c.key == key, fit)
        locked = locked.with_for_update(of=items, key_share=True, skip_locked=True)
        return change.connection.execute(locked).mappings().one_or_none()

    def release(self, annotator_id: str, key: str) -> bool:
        """Give an item back unfinished; the expert does not get it again. False where he does not hold it."""
        with self._ledger.change(annotator_id) as change:
            row = change.lock(key)
            held = hold_of(change, key, annotator_id)
            if held is None or held["state"] != Hold.HELD:
                return False
            return set_hold(change, row, annotator_id, Role(held["role"]), Hold.RELEASED, held["until"])

    def expire(self) -> int:
        """Take back what was held too long; how many reservations. `next_item` does this first."""
        own = reservations.c
        due = select(own.item, own.annotator).where(own.state == Hold.HELD, own.until <= self._ledger.clock())
        expired = 0
        while True:
            with self._ledger.read() as connection:
                found = connection.execute(due.order_by(own.item, own.annotator).limit(_EXPIRE_BATCH)).all()
            if not found:
                return expired
            for key, annotator_id in found:
                with self._ledger.change() as change:
                    row = change.lock(key)
                    held = hold_of(change, key, annotator_id)
                    if held is not None and held["state"] == Hold.HELD and held["until"] <= change.now:
                        role = Role(held["role"])
                        expired += set_hold(change, row, annotator_id, role, Hold.EXPIRED, held["until"])

    def holding(self, annotator_id: str) -> list[Reservation]:
        """What an expert holds now, the oldest first."""
        own = reservations.c
        statement = (
            select(items, own.role, own.until)
            .join(reservations, own.item == items.c.key)
            .where(own.annotator == annotator_id, own.state == Hold.HELD, own.until > self._ledger.clock())
            .order_by(own.created_at, own.item)
        )
        with self._ledger.read() as connection:
            return [
                _reservation(row, annotator_id, Role(row["role"]), row["until"])
                for row in connection.execute(statement).mappings()
            ]


def _fits(annotator: Annotator) -> ColumnElement[bool]:
    """Items with a free slot for this expert."""
    own = reservations.c
    had = exists().where(own.item == items.c.key, own.annotator == annotator.id, own.state != Hold.EXPIRED)
    free = (
        and_(items.c.state == State.ADJUDICATION, items.c.deciding == 0)
        if annotator.adjudicator
        else and_(items.c.state == State.PUBLISHED, items.c.taken < items.c.wanted)
    )
    return and_(free, items.c.speciality.in_(annotator.specialities), ~had)


def _reservation(item: RowMapping, annotator_id: str, role: Role, until: datetime) -> Reservation:
    return Reservation(
        item["key"],
        Kind(item["kind"]),
        item["ls_project"],
        item["ls_task"],
        annotator_id,
        role is Role.ADJUDICATE,
        until,
    )
