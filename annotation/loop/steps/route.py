"""Interactions → items: what is worth an expert's time, within the day's budgets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from annotation.core import Item, Kind, Reason, Severity
from annotation.loop.context import Loop
from annotation.loop.faults import point
from annotation.loop.result import Result
from annotation.loop.steps import resample
from annotation.loop.steps.clean import NoAssistant
from annotation.routing import risk
from annotation.routing.choose import choose
from annotation.routing.draw import Draws
from annotation.routing.features import Features
from annotation.routing.plan import Candidate, Key, Placement, Plan, Spent
from annotation.routing.score import score
from annotation.store import Candidate as Stored
from annotation.store import Routed, item_key

PLAN, DRAWN = "routing.plan", "routing.drawn"
_FLOOR = -1e3  # nats: a probability that was zero


def features_of(stored: Stored) -> Features:
    """Of an interaction's columns, rounding errors aside."""

    def log(value: float | None) -> float | None:
        return None if value is None else min(max(value, _FLOOR), 0.0)

    return Features(
        mean_logprob=log(stored.mean_logprob),
        min_logprob=log(stored.min_logprob),
        mean_entropy=None if stored.mean_entropy is None else max(stored.mean_entropy, 0.0),
        tokens=stored.tokens,
        picture_logprob=log(stored.picture_logprob),
        characters=stored.characters,
        truncated=stored.reason == "length",
        mode=stored.mode,
        task=stored.task,
        modality=stored.modality,
        agreement=stored.agreement,
    )


def risk_model(loop: Loop) -> risk.RiskModel:
    """The calibration in force; the prior before the first."""
    found = loop.store.progress.calibration()
    return risk.RiskModel() if found is None else risk.load(found.parameters)


def plan(loop: Loop) -> tuple[Plan, dict[Key, Stored]]:
    """What would be sent now, and the interactions that were looked at. Changes nothing."""
    # The desk mixes gold in as experts ask for work, so no part of the budgets is kept for it.
    policy, now = loop.settings.routing.model_copy(update={"gold_share": 0}), loop.clock()
    since = now - timedelta(days=policy.max_age_days)
    stored = {
        (each.interaction_id, each.kind): each
        for page in loop.store.candidates.pages(since=since)
        for each in page
    }
    candidates = list(_assessed(loop, stored.values()))
    drawn = loop.store.progress.cursor(DRAWN) or []
    spent = Spent(
        today=loop.store.figures.spent(now.date()),
        digests=loop.store.items.sent_digests(each.digest for each in candidates),
        drawn={(id, Kind(kind)) for id, kind in drawn} & stored.keys(),
    )
    return choose(candidates, spent, policy, loop.secrets.key, now), stored


def _assessed(loop: Loop, stored: Iterable[Stored]) -> Iterable[Candidate]:
    model = risk_model(loop)
    kinds: dict[Kind, list[Stored]] = defaultdict(list)
    for each in stored:
        kinds[each.kind].append(each)
    for kind, ones in kinds.items():
        assessed = model.assess_all([score(features_of(each)) for each in ones], kind)
        for each, found in zip(ones, assessed, strict=True):
            yield Candidate(
                id=each.interaction_id,
                kind=kind,
                created_at=each.created_at,
                digest=each.digest,
                speciality=loop.settings.speciality(each.modality, each.task),
                modality=each.modality,
                task=each.task,
                caller=each.caller,
                risk=found.risk,
                score=found.score,
                missed=found.missed,
                flagged=each.flagged,
                consent=True,  # the store gives no others
            )


def run(loop: Loop) -> Result:
    """Decide once a pass. A decision is kept before it is carried out, so that a kill in between changes no weight."""
    progress = loop.store.progress
    result = _drawn_again(loop)
    if (pending := progress.cursor(PLAN)) is not None:
        result.done += _carry_out(loop, pending)
    made, stored = plan(loop)
    drawn = {(id, Kind(kind)) for id, kind in progress.cursor(DRAWN) or []} & stored.keys()
    drawn |= made.drawn
    decided = {
        "items": [asdict(each) for each in _routed(loop, made, stored)],
        "drawn": sorted([id, kind.value] for id, kind in drawn),
        "weights": _credited(loop, made),
    }
    if decided["items"] or made.drawn:
        progress.set_cursor(PLAN, decided)
        point("route.decided")
        result.done += _carry_out(loop, decided)
    result.said["looked_at"] = len(stored)
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
    for one in made.withheld:
        if one.of:
            extra[one.of, one.candidate.kind] += one.weight
    return extra


def _credited(loop: Loop, made: Plan) -> dict[str, float]:
    """New weights, by key, of items that earlier passes sent. Not what is added: carried out twice, that would count twice."""
    now = {(one.candidate.id, one.candidate.kind) for one in made.sent}
    keys = {item_key(*of): more for of, more in _repeated(made).items() if more and of not in now}
    return {key: loop.store.items.get(key).weight + more for key, more in sorted(keys.items())}


def _routed(loop: Loop, made: Plan, stored: dict[Key, Stored]) -> Iterable[Routed]:
    extra = _repeated(made)
    alternative = Draws(loop.secrets.key, "alternatives")
    for one in made.sent:
        weight = (
            one.weight + extra[one.candidate.id, one.candidate.kind] if one.reason is Reason.RANDOM else 0.0
        )
        yield _item(loop, one, one.candidate.kind, stored, weight)
        text = one.candidate.kind in (Kind.CHAT, Kind.REPORT)
        if text and alternative(one.candidate.id) < loop.settings.preference_share:
            yield _item(loop, one, Kind.PREFERENCE, stored, 0.0)


def _item(loop: Loop, one: Placement, kind: Kind, stored: dict[Key, Stored], weight: float) -> Routed:
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
        model_id=stored[candidate.id, candidate.kind].model_id,
        wanted=loop.settings.judge.needed(asked, Severity.NONE),
        digest=candidate.digest if kind is candidate.kind else "",
        weight=weight,
    )
