"""What has changed in a project between two looks at all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from annotation.core import Annotation


@dataclass(frozen=True)
class Snapshot:
    """Attributes:
    annotations: time of change by annotation id (`project:number`).
    tasks: Label Studio's numbers by item id.
    """

    annotations: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """Ids in ascending order.

    Attributes:
        gone: items whose task a person deleted, or made anew under another number.
        surplus: items that have a second task, and its number: a request that was given up arrived after all.
    """

    new: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    surplus: tuple[tuple[str, int], ...] = ()


def stamp(annotation: Annotation) -> str:
    return annotation.updated_at.isoformat()


def diff(before: Snapshot, after: Snapshot) -> Changes:
    """What became of `before`."""
    old, new = before.annotations, after.annotations
    return Changes(
        new=tuple(sorted(new.keys() - old.keys())),
        updated=tuple(sorted(id for id in new.keys() & old.keys() if new[id] != old[id])),
        deleted=tuple(sorted(old.keys() - new.keys())),
        gone=tuple(sorted(item for item, task in before.tasks.items() if after.tasks.get(item) != task)),
    )
