"""Items on their way from routed to published, and out of the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from sqlalchemy import RowMapping, delete, insert, select

from annotation.core import Item, Reason
from annotation.store.codec import item_to_json, verdict_to_json
from annotation.store.entries import RANKS, Routed, item_key
from annotation.store.evidence import settle
from annotation.store.ledger import CONTROLLER, Change
from annotation.store.lookup import Lookup
from annotation.store.schema import contents, gold, item_pictures, items
from annotation.store.states import Because, NotAllowed, State
from annotation.store.withdrawal import withdraw
from services.errors import InvalidInput
from services.interactions.schema import interactions

_BATCH = 200
MAX_WANTED = 1_000


@dataclass(frozen=True)
class Items(Lookup):
    """Every method that changes an item is one transaction, and a no-op where it was done before.

    They raise `NotFound` for an unknown key and `NotAllowed` where the item's state forbids the move.
    """

    def route(self, chosen: Sequence[Routed], who: str = CONTROLLER) -> list[str]:
        """Take interactions in, once for each kind; the keys of those that are new.

        Interactions that are gone meanwhile are left out.

        Raises:
            InvalidInput: `wanted` or `risk` out of range, or a gold item, which has no interaction.
        """
        for each in chosen:
            if not 1 <= each.wanted <= MAX_WANTED or not 0 <= each.risk <= 1 or each.reason is Reason.GOLD:
                raise InvalidInput("wanted 1 to 1,000, risk 0 to 1, no gold", field="routed")
        new: list[str] = []
        ordered = sorted(chosen, key=lambda each: (each.interaction_id, each.kind))
        for start in range(0, len(ordered), _BATCH):
            with self.ledger.change(who) as change:
                new += self._route(change, ordered[start : start + _BATCH])
        return new

    @staticmethod
    def _route(change: Change, chosen: list[Routed]) -> list[str]:
        # A purge waits until their items are there, or the items find no interaction.
        there = set(
            change.connection.scalars(
                select(interactions.c.id)
                .where(interactions.c.id.in_({each.interaction_id for each in chosen}))
                .order_by(interactions.c.id)
                # Only a purge holds a lock against this; what it holds is as good as gone.
                .with_for_update(read=True, key_share=True, skip_locked=True)
            )
        )
        rows = {}
        for each in chosen:
            if each.interaction_id in there:
                row = _new_row(change, each.interaction_id, vars(each))
                rows[row["key"]] = {**row, "interaction_id": each.interaction_id, "state": State.ROUTED}
        if not rows:
            return []
        new = list(
            change.connection.scalars(
                change.upsert(items).on_conflict_do_nothing().returning(items.c.key), list(rows.values())
            )
        )
        for key in sorted(new):
            row = rows[key]
            change.note(
                "route", key, {}, {"reason": row["reason"], "risk": row["risk"], "wanted": row["wanted"]}
            )
        return new

    def weigh(self, weights: Mapping[str, float], who: str = CONTROLLER) -> None:
        """Set how many interactions of the random share items stand for, by key, since more like them were drawn.

        Raises:
            InvalidInput: a weight is negative or not finite.
        """
        if not all(0 <= weight < inf for weight in weights.values()):
            raise InvalidInput("must be finite, 0 or more", field="weights")
        with self.ledger.change(who) as change:
            for key in sorted(weights):
                row = change.lock(key)
                if row["weight"] != weights[key]:
                    change.set(row, weight=weights[key])
                    change.note("weigh", key, {"weight": row["weight"]}, {"weight": weights[key]})

    def add_gold(self, item: Item, who: str, wanted: int = MAX_WANTED) -> str:
        """Take in an item with a known verdict, already de-identified, its pictures with their bytes; its key.

        The verdict is kept apart; no other method returns it but `gold_verdict`.

        Raises:
            InvalidInput: no gold verdict, another reason than GOLD, a wrong id, or a picture without bytes.
        """
        if item.reason is not Reason.GOLD or item.gold is None:
            raise InvalidInput("must have a verdict and the reason gold", field="item.gold")
        key = item_key(item.id, item.kind)
        digests = self.shelf.keep(_files(item))
        with self.ledger.change(who) as change:
            row = _new_row(change, item.id, {**vars(item), "wanted": wanted})
            added = change.connection.scalar(
                change.upsert(items)
                .values({**row, "state": State.CLEANED})
                .on_conflict_do_nothing()
                .returning(items.c.key)
            )
            if added is None:
                return key
            _write_contents(change, key, None, item_to_json(item), {}, digests)
            verdict = verdict_to_json(item.gold)
            change.connection.execute(insert(gold).values(item=key, verdict=verdict))
            change.note("gold", key, {}, {"state": State.CLEANED})
        return key

    def clean(self, key: str, item: Item, report: dict[str, Any], who: str = CONTROLLER) -> State:
        """Keep the de-identified item, whose pictures have their bytes, and what was removed; the state then.

        Raises:
            InvalidInput: another item than `key`, a gold one, or a picture without bytes.
        """
        if item_key(item.id, item.kind) != key or item.gold is not None:
            raise InvalidInput("must be the item that was routed, without a gold verdict", field="item.id")
        digests = self.shelf.keep(_files(item))
        with self.ledger.change(who) as change:
            row = change.lock(key)
            if _gone(row):
                withdraw(change, key, Because.EXPIRED)
                return State.WITHDRAWN
            values = {"task": item.task, "modality": item.modality, "model_id": item.model_id}
            if change.move(row, State.CLEANED, **values):
                _write_contents(change, key, row["interaction_id"], item_to_json(item), report, digests)
        return State.CLEANED

    def hold(self, key: str, report: dict[str, Any], who: str = CONTROLLER) -> State:
        """Hold the item back for a person, with what de-identification says of it; the state then.

        Nothing of the item itself is kept.
        """
        with self.ledger.change(who) as change:
            row = change.lock(key)
            if _gone(row):
                withdraw(change, key, Because.EXPIRED)
                return State.WITHDRAWN
            if change.move(row, State.HELD):
                _write_contents(change, key, row["interaction_id"], None, report, [])
        return State.HELD

    def publish(self, key: str, project: int, task: int, who: str = CONTROLLER) -> State:
        """Note the item's task in Label Studio; the state it is in then.

        An item that was withdrawn meanwhile keeps the numbers too, so that `withdrawn_tasks` names the task.

        Raises:
            NotAllowed: it is published as another task, the task is another item's, or it is not cleaned yet.
        """
        with self.ledger.change(who) as change:
            row = change.lock(key)
            state = State(row["state"])
            numbers = {"ls_project": project, "ls_task": task}
            if row["ls_task"] is not None:
                if (row["ls_project"], row["ls_task"]) != (project, task):
                    raise NotAllowed("the item is published as another task", field="task")
                return state
            other = select(items.c.key).where(items.c.ls_project == project, items.c.ls_task == task)
            if change.connection.scalar(other) is not None:
                raise NotAllowed("this task is another item's", field="task")
            if state is State.WITHDRAWN:
                change.set(row, **numbers)
                return state
            change.move(row, State.PUBLISHED, **numbers)
            # Its verdicts may be here before it: the controller may have died between the task and this.
            settle(change, key, changed=False)
            return State(change.lock(key)["state"])

    def withdraw(self, key: str, because: Because, who: str = CONTROLLER) -> bool:
        """Take the item out and delete what it said; False where that was done."""
        with self.ledger.change(who) as change:
            return withdraw(change, key, because)

    def task_gone(self, key: str, who: str = CONTROLLER) -> State:
        """A person deleted the item's task. What was judged before stays; anything else is withdrawn."""
        with self.ledger.change(who) as change:
            row = change.lock(key)
            if State(row["state"]) not in {State.JUDGED, State.BUILT, State.WITHDRAWN}:
                withdraw(change, key, Because.DELETED)
            if row["ls_task"] is not None:
                change.note("task_gone", key, {"task": row["ls_task"]}, {})
                change.set(row, ls_project=None, ls_task=None)
            return State(change.lock(key)["state"])


def _new_row(change: Change, id: str, of: dict[str, Any]) -> dict[str, Any]:
    names = ("kind", "reason", "speciality", "modality", "task", "model_id", "risk", "wanted")
    return {
        **{name: of[name] for name in names},
        "key": item_key(id, of["kind"]),
        "id": id,
        "since": change.now,
        "created_at": change.now,
        "updated_at": change.now,
        "because": "",
        "revision": 1,
        "digest": of.get("digest", ""),
        "weight": of.get("weight", 0.0),
        "rank": RANKS[of["reason"]],
        "taken": 0,
        "deciding": 0,
    }


def _write_contents(
    change: Change,
    key: str,
    interaction_id: str | None,
    document: dict[str, Any] | None,
    report: dict[str, Any],
    digests: list[str],
) -> None:
    connection = change.connection
    connection.execute(delete(contents).where(contents.c.item == key))
    connection.execute(
        insert(contents).values(item=key, interaction_id=interaction_id, document=document, report=report)
    )
    if digests:
        connection.execute(insert(item_pictures), [{"item": key, "sha256": each} for each in digests])


def _gone(row: RowMapping) -> bool:
    """Whether the item's interaction was purged."""
    return row["interaction_id"] is None and row["reason"] != Reason.GOLD


def _files(item: Item) -> dict[str, bytes]:
    files = {}
    for picture in item.pictures:
        if picture.data is None:
            raise InvalidInput("a picture without bytes", field="item.pictures")
        files[picture.sha256] = picture.data
    return files
