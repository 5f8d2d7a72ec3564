"""What is kept of roll-outs: the one at work, as far as it came, and a history that only grows."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from services.rollout.limits import Limits
from services.rollout.measured import Measured
from services.rollout.version import Change, Version

MAX_WHY_CHARS = 500
MAX_EVENTS = 200  # an object of Kubernetes holds 1 MiB; an event takes up to 3 KiB


class Phase(StrEnum):
    """Where a roll-out stands. The last five are its ends."""

    BASELINE = "baseline"
    APPLYING = "applying"
    STARTING = "starting"
    WATCHING = "watching"
    RETURNING = "returning"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        return self in ENDS


ENDS = {Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED, Phase.SUPERSEDED, Phase.FAILED}


@dataclass
class Rollout:
    """One roll-out.

    Attributes:
        undo: the change that leads back.
        cluster: Ray cluster that was active before the change; empty on one machine.
        since: when the phase began; `changed`, when the change was made; seconds since 1970.
        generation: of the target's specification, once changed.
        reason: why it went back, or what is known of its end.
        abort: who wants it back and why, once somebody does.
        force: go on although what is in service is unhealthy or breaks an objective already.
        sources: addresses that evidence comes from, by their options' names; keys are never kept.
    """

    id: str
    by: str
    why: str
    change: Change
    undo: Change
    limits: Limits
    cluster: str = ""
    begun: float = 0.0
    phase: Phase = Phase.BASELINE
    since: float = 0.0
    changed: float = 0.0
    generation: int = 0
    baseline: Measured | None = None
    measured: Measured | None = None
    reason: str = ""
    abort: dict[str, str] | None = None
    force: bool = False
    sources: dict[str, list[str]] = field(default_factory=dict)

    @property
    def new(self) -> Version:
        return self.change.version

    @property
    def old(self) -> Version:
        return self.undo.version

    def same_as(self, change: Change) -> bool:
        return (self.new.settings, self.change.images, self.change.env) == (
            change.version.settings,
            change.images,
            change.env,
        )

    def to_json(self) -> dict[str, Any]:
        value = dict(vars(self))
        value |= {"change": self.change.to_json(), "undo": self.undo.to_json()}
        value |= {"limits": self.limits.model_dump(), "phase": self.phase.value}
        for name in ("baseline", "measured"):
            value[name] = found.to_json() if (found := getattr(self, name)) else None
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        parts: dict[str, Any] = {
            "change": Change.from_json(value["change"]),
            "undo": Change.from_json(value["undo"]),
            "limits": Limits.model_validate(value["limits"]),
            "phase": Phase(value["phase"]),
        }
        for name in ("baseline", "measured"):
            parts[name] = Measured.from_json(value[name]) if value[name] else None
        return cls(**{**value, **parts})

    def event(self, what: str, by: str, reason: str, now: float) -> Event:
        return Event(now, self.id, what, by, self.old, self.new, reason)


@dataclass(frozen=True)
class Event:
    """A line of the history: who, when, from what, to what, why, and what came of it."""

    at: float
    rollout: str
    what: str
    by: str
    old: Version
    new: Version
    reason: str

    def to_json(self) -> dict[str, Any]:
        value = {"at": iso(self.at), "rollout": self.rollout, "what": self.what, "by": self.by}
        return {**value, "from": vars(self.old), "to": vars(self.new), "reason": self.reason}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        at = datetime.fromisoformat(value["at"]).timestamp()
        old, new = Version(**value["from"]), Version(**value["to"])
        return cls(at, value["rollout"], value["what"], value["by"], old, new, value["reason"])


@dataclass
class Book:
    """All that is kept.

    Attributes:
        revision: of the copy it was read from; a copy that changed since is not written over.
    """

    current: Rollout | None = None
    history: list[Event] = field(default_factory=list)
    revision: str = ""


def new_id(now: float) -> str:
    """A name that sorts by time."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def person() -> str:
    """Who runs this process, as USER@HOST; MEDMAX_ROLLOUT_BY names another."""
    if given := os.environ.get("MEDMAX_ROLLOUT_BY"):
        return given[:128]
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:128]


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
