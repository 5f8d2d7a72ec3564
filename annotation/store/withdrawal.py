"""Taking an item out: what it said and what was said of it is deleted; that it existed stays."""

from __future__ import annotations

from sqlalchemy import delete, select, update

from annotation.store.evidence import end_holds
from annotation.store.ledger import Change
from annotation.store.schema import (
    annotation_versions,
    contents,
    expert_annotations,
    gold,
    judgements,
)
from annotation.store.states import Because, State


def withdraw(change: Change, key: str, because: Because) -> bool:
    """Withdraw an item; False where it was. Its pictures' files go with the next `Retention.sweep`."""
    row = change.lock(key, interaction=True)
    if not change.move(row, State.WITHDRAWN, because=because):
        return False
    end_holds(change, row)
    connection = change.connection
    # Their links to pictures go with them.
    connection.execute(delete(contents).where(contents.c.item == key))
    connection.execute(delete(gold).where(gold.c.item == key))
    own = select(expert_annotations.c.id).where(expert_annotations.c.item == key)
    connection.execute(
        update(annotation_versions).where(annotation_versions.c.annotation.in_(own)).values(verdict=None)
    )
    connection.execute(
        update(expert_annotations).where(expert_annotations.c.item == key).values(verdict=None)
    )
    connection.execute(update(judgements).where(judgements.c.item == key).values(verdict=None))
    return True
