"""A roll-out before it begins: from options to a record, with what would stop it found first."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.errors import ConfigurationError, Unavailable
from services.rollout.evidence import Evidence
from services.rollout.limits import Limits
from services.rollout.place import BLIND, GATEWAY, METRICS, PROMETHEUS, Place, Sources
from services.rollout.record import MAX_WHY_CHARS, Phase, Rollout, new_id
from services.rollout.target import State
from services.rollout.version import Change, Version


@dataclass(frozen=True)
class Plan:
    """What would be done.

    Attributes:
        diff: of the specification, unified; empty where it holds the change already.
        how: it would come about.
    """

    place: Place
    state: State
    rollout: Rollout
    diff: str
    how: str

    @property
    def nothing(self) -> bool:
        return not self.diff

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.place.target.name,
            "from": vars(self.rollout.old),
            "to": vars(self.rollout.new),
            "ready_now": self.state.ready,
            "diff": self.diff,
            "how": self.how,
            "limits": self.rollout.limits.model_dump(),
            "evidence": self.rollout.sources,
        }


def plan(
    place: Place,
    change: Change,
    limits: Limits,
    sources: Sources,
    by: str,
    why: str,
    force: bool,
    blind: bool,
) -> Plan:
    """Reads the target and compares.

    Args:
        sources: of evidence, as options gave them; the place's own are used where none is given.
        force: although what serves is not healthy.
        blind: on health alone, without looking at requests.

    Raises:
        ConfigurationError: there is nothing to judge by, or what serves is not healthy.
        NotFound, Unavailable, Unauthenticated, PermissionDenied: of the target.
    """
    target = place.target
    state = target.read()
    if place.local:
        absolute = str(Path(change.version.checkpoint).absolute())
        change = replace(change, version=replace(change.version, checkpoint=absolute))
    undo = target.undo_of(state, change)
    used = {**place.sources, **{name: urls for name, urls in sources.items() if urls}}
    if blind:
        used = {GATEWAY: used.get(GATEWAY, []), BLIND: ["yes"]}
    now = time.time()
    rollout = Rollout(
        id=new_id(now),
        by=by,
        why=why[:MAX_WHY_CHARS],
        change=change,
        undo=undo,
        limits=limits,
        cluster=state.cluster,
        begun=now,
        since=now,
        force=force,
        sources=used,
    )
    return Plan(place, state, rollout, target.preview(state, change), target.how(state, change))


def check(plan: Plan, last: Rollout | None) -> None:
    """Raises: ConfigurationError: the plan must not begin so; says what to do.

    Args:
        last: roll-out before this one, which must not have gone back from the same version: the review loop runs its
            command until it succeeds, and would try it on patients again and again.
    """
    if (
        last
        and last.phase in {Phase.ROLLED_BACK, Phase.ABORTED, Phase.FAILED}
        and last.same_as(plan.rollout.change)
    ):
        raise ConfigurationError(
            f"the last roll-out ({last.id}, {last.phase}) was of this version: {last.reason}; use --again once the "
            "cause is mended"
        )
    if not plan.state.ready and not plan.rollout.force:
        raise ConfigurationError(
            f"what serves now is not healthy ({plan.state.detail}), so the new version could not be judged by it; "
            "use --force where the new version is the cure"
        )
    if not any(plan.rollout.sources.get(name) for name in (METRICS, PROMETHEUS, BLIND)):
        raise ConfigurationError(
            "there is nothing to judge requests by; give --prometheus or --metrics, or --health-only"
        )


def known_former(rollout: Rollout, judged_by: Evidence) -> Rollout:
    """`rollout` with the digest of what serves now; so every source of evidence is known to answer before it begins.

    Raises:
        Unavailable, Unauthenticated: one does not; names it.
    """
    judged_by.mark()
    if judged_by.probe is None:
        return rollout
    try:
        digest = judged_by.probe.digest()
    except Unavailable:
        if rollout.force:
            return rollout
        raise
    return replace(rollout, undo=replace(rollout.undo, version=replace(rollout.old, digest=digest)))


def version(
    former: Version, checkpoint: str, model_id: str | None, vqgan: str | None, digest: str
) -> Version:
    """The version that options name; the model's name stays where none is given."""
    made = Version(checkpoint, model_id or former.model_id, vqgan or "", digest)
    return made if digest else replace(made, digest=_digest_of(checkpoint))


def _digest_of(checkpoint: str) -> str:
    """SHA-256 over the weights where the checkpoint can be read on this machine; empty otherwise."""
    folder = Path(checkpoint)
    if not (folder / "config.json").is_file():
        return ""
    from services.checkpoint import open_checkpoint

    return open_checkpoint(folder).digest
