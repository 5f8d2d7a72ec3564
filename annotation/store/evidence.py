"""Who holds an item or is done with it, and what new verdicts do to its state."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import RowMapping, func, select

from annotation.core import Reason
from annotation.store.ledger import Change
from annotation.store.schema import expert_annotations, reservations
from annotation.store.states import State


class Role(StrEnum):
    REVIEW = "review"
    ADJUDICATE = "adjudicate"


class Hold(StrEnum):
    """Of a reservation. An expired one may be taken again by the same expert; a released one may not."""

    HELD = "held"
    DONE = "done"
    RELEASED = "released"
    EXPIRED = "expired"


_COUNTS = frozenset({Hold.HELD, Hold.DONE})
_COLUMN = {Role.REVIEW: "taken", Role.ADJUDICATE: "deciding"}


def hold_of(change: Change, key: str, annotator: str) -> RowMapping | None:
    """The reservation of a locked item by one annotator."""
    statement = select(reservations).where(reservations.c.item == key, reservations.c.annotator == annotator)
    return change.connection.execute(statement).mappings().one_or_none()


def set_hold(
    change: Change, row: RowMapping, annotator: str, role: Role, hold: Hold, until: datetime
) -> bool:
    """Write one annotator's reservation of a locked item and keep the item's counts true; False where nothing changes."""
    before = hold_of(change, row["key"], annotator)
    if before is not None and hold is not Hold.HELD and (before["state"], before["role"]) == (hold, role):
        return False
    counts = {name: row[name] for name in _COLUMN.values()}
    if before is not None and before["state"] in _COUNTS:
        counts[_COLUMN[Role(before["role"])]] -= 1
    if hold in _COUNTS:
        counts[_COLUMN[role]] += 1
    values = {"role": role, "state": hold, "until": until}
    change.connection.execute(
        change.upsert(reservations)
        .values(item=row["key"], annotator=annotator, created_at=change.now, **values)
        .on_conflict_do_update(
            index_elements=["item", "annotator"],
            set_={**values, "created_at": change.now} if hold is Hold.HELD else values,
        )
    )
    change.set(row, **counts)
    change.note(
        "reservation",
        row["key"],
        {"hold": before["state"] if before is not None else None},
        {"hold": hold, "annotator": annotator, "role": role},
    )
    return True


def end_holds(change: Change, row: RowMapping) -> None:
    """Release what is held of a locked item."""
    statement = select(reservations).where(
        reservations.c.item == row["key"], reservations.c.state == Hold.HELD
    )
    for each in change.connection.execute(statement).mappings().all():
        current = change.lock(row["key"])
        set_hold(change, current, each["annotator"], Role(each["role"]), Hold.RELEASED, each["until"])


def verdicts(change: Change, key: str) -> tuple[int, bool]:
    """Experts with a verdict on the item, adjudicators aside, and whether an adjudicator gave one."""
    live = (expert_annotations.c.item == key) & expert_annotations.c.deleted_at.is_(None)
    experts = select(func.count(expert_annotations.c.annotator.distinct())).where(
        live, ~expert_annotations.c.adjudication
    )
    decided = select(expert_annotations.c.id).where(live, expert_annotations.c.adjudication).limit(1)
    number = change.connection.scalar(experts) or 0
    return number, change.connection.scalar(decided) is not None


def settle(change: Change, key: str, *, changed: bool = True) -> None:
    """Move a locked item to where its verdicts put it, after they, or how many are wanted, changed.

    With `changed`, a verdict that was judged is to be judged again.
    """
    row = change.lock(key)
    state = State(row["state"])
    experts, decided = verdicts(change, key)
    # A gold item stays with the experts: it measures them, and is never judged.
    enough = row["reason"] != Reason.GOLD and (decided or experts >= row["wanted"])
    if state is State.PUBLISHED and enough:
        change.move(row, State.COLLECTED)
    elif state is State.COLLECTED and not enough:
        change.move(row, State.PUBLISHED)
    elif (state is State.ADJUDICATION and decided) or (state in {State.JUDGED, State.BUILT} and changed):
        change.move(row, State.COLLECTED)
    elif changed:
        change.set(row, revision=row["revision"] + 1)
