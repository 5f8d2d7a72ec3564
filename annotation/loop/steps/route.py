"""Interactions → items: what is worth an expert's time, within the day's budgets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from annotation.core import Item, Kind, Reason, Severity
from annotation.loop.assistant import NoAssistant
from annotation.loop.candidates import candidates
from annotation.loop.context import Loop
from annotation.loop.faults import point
from annotation.loop.result import Result
from annotation.loop.steps import resample
from annotation.routing.choose import choose
from annotation.routing.draw import Draws
from annotation.routing.plan import Key, Placement, Plan, Spent
from annotation.store import Routed, item_key

PLAN, DRAWN = "routing.plan", "routing.drawn"


def plan(loop: Loop) -> tuple[Plan, Spent]:
    """What would be sent now, and what earlier passes did. Changes nothing."""
    # The desk mixes gold in as experts ask for work, so no part of the budgets is kept for it.
    policy, now = loop.settings.routing.model_copy(update={"gold_share": 0}), loop.clock()
    made = candidates(loop, now - timedelta(days=policy.max_age_days))
    drawn = [(id, Kind(kind)) for id, kind in loop.store.progress.cursor(DRAWN) or []]
    spent = Spent(
        today=loop.store.figures.spent(now.date()),
        digests=loop.store.items.sent_digests(made.repeated),
        drawn=frozenset(key for key in drawn if made.pool.places([key])),
    )
    return choose(made.pool, spent, policy, loop.secrets.key, now), spent


def run(loop: Loop) -> Result:
    """Decide once a pass. A decision is kept before it is carried out, so that a kill in between changes no weight."""
    progress = loop.store.progress
    result = _drawn_again(loop)
    if (pending := progress.cursor(PLAN)) is not None:
        result.done += _carry_out(loop, pending)
    made, spent = plan(loop)
    decided = {
        "items": [asdict(each) for each in _routed(loop, made)],
        "drawn": sorted([id, kind.value] for id, kind in spent.drawn | made.drawn),
        "weights": _credited(loop, made),
    }
    if decided["items"] or made.drawn:
        progress.set_cursor(PLAN, decided)
        point("route.decided")
        result.done += _carry_out(loop, decided)
    result.said["looked_at"] = len(made.sent) + len(made.withheld)
    if made.uncovered:
        result.said["uncovered"] = sum(made.uncovered.values())
    return result


def _drawn_again(loop: Loop) -> Result:
    """Before the decision, for which it counts. An assistant out of reach holds nothing up: risk goes without."""
    try:
        drawn = resample.run(loop)
    except NoAssistant as error:
        return Result(failed=Counter({error.code: 1}))
    return Result(failed=drawn.failed, said={"drawn_again": drawn.done} if drawn.done else {})


def _carry_out(loop: Loop, decided: dict[str, Any]) -> int:
    chosen = [
        Routed(**{**each, "kind": Kind(each["kind"]), "reason": Reason(each["reason"])})
        for each in decided["items"]
    ]
    new = loop.store.items.route(chosen)
    point("route.routed")
    loop.store.items.weigh(decided.get("weights", {}))
    point("route.weighed")
    loop.store.progress.set_cursor(DRAWN, decided["drawn"])
    point("route.drawn")
    loop.store.progress.set_cursor(PLAN, None)
    return len(new)


def _repeated(made: Plan) -> dict[Key, float]:
    """What members of the share that repeat another interaction add to the weight of that one's verdict."""
    extra: dict[Key, float] = defaultdict(float)
    for one in made.withheld.weighty():
        extra[one.of, one.candidate.kind] += one.weight
    return extra


def _credited(loop: Loop, made: Plan) -> dict[str, float]:
    """New weights, by key, of items that earlier passes sent. Not what is added: carried out twice, that would count twice."""
    now = {(one.candidate.id, one.candidate.kind) for one in made.sent}
    keys = {item_key(*of): more for of, more in _repeated(made).items() if more and of not in now}
    return {key: loop.store.items.get(key).weight + more for key, more in sorted(keys.items())}


def _routed(loop: Loop, made: Plan) -> Iterable[Routed]:
    extra = _repeated(made)
    alternative = Draws(loop.secrets.key, "alternatives")
    for one in made.sent:
        weight = (
            one.weight + extra[one.candidate.id, one.candidate.kind] if one.reason is Reason.RANDOM else 0.0
        )
        yield _item(loop, one, one.candidate.kind, weight)
        text = one.candidate.kind in (Kind.CHAT, Kind.REPORT)
        if text and alternative(one.candidate.id) < loop.settings.preference_share:
            yield _item(loop, one, Kind.PREFERENCE, 0.0)


def _item(loop: Loop, one: Placement, kind: Kind, weight: float) -> Routed:
    candidate = one.candidate
    assert one.reason is not None
    asked = Item(candidate.id, kind, (), (), risk=candidate.risk)
    return Routed(
        candidate.id,
        kind,
        one.reason,
        candidate.risk,
        speciality=candidate.speciality,
        task=candidate.task,
        modality=candidate.modality,
        model_id=candidate.model_id,
        wanted=loop.settings.judge.needed(asked, Severity.NONE),
        digest=candidate.digest if kind is candidate.kind else "",
        weight=weight,
    )
