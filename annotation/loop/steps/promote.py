"""Evaluated candidates → in service, or refused, with the reasons; and back."""

from __future__ import annotations

from pathlib import Path

from annotation.loop import pointer
from annotation.loop.context import Loop
from annotation.loop.faults import point
from annotation.loop.result import Result
from annotation.loop.steps.evaluate import compared, undecided
from annotation.loop.steps.train import base_of
from annotation.loop.verdict import decide
from annotation.store import Status, What
from annotation.store.ledger import CONTROLLER
from services.errors import NotFound


def run(loop: Loop) -> Result:
    """Decide on evaluated candidates, then make `current` and what serves it follow the decision."""
    result = Result()
    for candidate in undecided(loop):
        found = compared(candidate)
        if found is None:
            result.left += 1
            continue
        if base_of(Path(candidate.path).parent) != loop.checkpoint.absolute():
            # It was measured against a model that is not in service any more.
            why = "another model was promoted while this one was trained; the next version is trained on that"
            loop.store.versions.decide(candidate.id, Status.REFUSED, why)
            result.done += 1
            continue
        decided = decide(found, loop.settings.promote)
        status = Status.PROMOTED if decided.promote else Status.REFUSED
        loop.store.versions.decide(candidate.id, status, decided.why, decided.scores)
        point("promote.decided")
        result.done += 1
        result.said |= {"candidate": candidate.id, "status": status.value, "why": decided.why}
    if pointer.follow(loop):
        result.said["current"] = loop.checkpoint.name
    point("promote.pointed")
    if pointer.roll_out(loop):
        result.said["rolled_out"] = True
    return result


def by_hand(loop: Loop, id: str, why: str, who: str) -> None:
    """A person promotes a candidate, or again a model that was in service.

    Raises:
        NotFound: no such model.
        NotAllowed: it was refused.
    """
    loop.store.versions.decide(id, Status.PROMOTED, why, who=who)
    pointer.follow(loop)
    pointer.roll_out(loop)


def rollback(loop: Loop, why: str, who: str = CONTROLLER) -> str:
    """Back to the model that was in service before; its id, or the installation's own checkpoint's name.

    Raises:
        NotFound: nothing was promoted.
    """
    serving = loop.store.versions.serving()
    if serving is None:
        raise NotFound("nothing was promoted, so there is nothing to go back to", field="model")
    before = [
        each
        for each in loop.store.versions.all(What.MODEL)
        if each.status is Status.RETIRED and each.id != serving.id and each.created_at < serving.created_at
    ]
    if before:
        earlier = max(before, key=lambda each: each.created_at)
        loop.store.versions.decide(earlier.id, Status.PROMOTED, why, who=who)
        name = earlier.id
    else:
        loop.store.versions.decide(serving.id, Status.RETIRED, why, who=who)
        name = loop.base.checkpoint.name
    pointer.follow(loop)
    pointer.roll_out(loop)
    return name
