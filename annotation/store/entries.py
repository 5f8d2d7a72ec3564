"""What the database knows of an item, apart from what the item says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping

from annotation.core import Kind, Reason
from annotation.store.states import State
from services.errors import InvalidInput

_ID = re.compile(r"[A-Za-z0-9_-]{1,60}")

# A user asked for these: experts see them before what risk or chance picked.
RANKS = {Reason.FLAG: 0, Reason.RISK: 1, Reason.RANDOM: 1, Reason.GOLD: 1}


def item_key(id: str, kind: Kind) -> str:
    """The item's key, `kind:id`: one item for each interaction and kind.

    Raises:
        InvalidInput: `id` is not 1 to 60 characters of [A-Za-z0-9_-].
    """
    if not _ID.fullmatch(id):
        raise InvalidInput("must be 1 to 60 characters of [A-Za-z0-9_-]", field="item.id")
    return f"{kind.value}:{id}"


@dataclass(frozen=True)
class Entry:
    """An item's place in the loop.

    Attributes:
        key: `kind:id`.
        interaction_id: None for gold items, and once the interaction is purged.
        weight: how many interactions of the random share it stands for; 0 outside of it.
        since: in this state, UTC.
        because: why it was withdrawn; empty where it was not.
        revision: changes with the state and the evidence; give it back to say what a decision was based on.
        wanted: how many experts.
        taken: experts who hold it or are done with it.
        ls_project, ls_task: Label Studio's numbers, None before it is published.
    """

    key: str
    id: str
    kind: Kind
    interaction_id: str | None
    reason: Reason
    speciality: str
    modality: str
    task: str
    model_id: str
    risk: float
    weight: float
    state: State
    since: datetime
    because: str
    revision: int
    wanted: int
    taken: int
    deciding: int
    ls_project: int | None
    ls_task: int | None
    created_at: datetime

    @property
    def gold(self) -> bool:
        return self.reason is Reason.GOLD

    @classmethod
    def of(cls, row: RowMapping) -> Entry:
        values = {name: row[name] for name in cls.__dataclass_fields__}
        return cls(
            **{
                **values,
                "kind": Kind(row["kind"]),
                "reason": Reason(row["reason"]),
                "state": State(row["state"]),
            }
        )


@dataclass(frozen=True)
class Routed:
    """What routing decided about one interaction.

    Attributes:
        wanted: how many experts, 1 or more.
        digest: equal for duplicates; empty where unknown.
        weight: how many interactions of the random share the item stands for; 0 outside of it.
    """

    interaction_id: str
    kind: Kind
    reason: Reason
    risk: float
    speciality: str = "general"
    task: str = ""
    modality: str = ""
    model_id: str = ""
    wanted: int = 1
    digest: str = ""
    weight: float = 0.0
