"""All verdicts on one item → one judgement, or what is missing for it.

1. Of annotations with one id the latest counts, deleted ones do not; of one expert, the latest.
2. An adjudicator's verdict decides; of several, the latest.
3. Verdicts of annotators who are unreliable at this kind do not count.
4. Fewer than the policy asks: `NeedsMore`.
5. A verdict stands that more than half of the experts, holding more than half of their weight, agree with, unless one
   expert sees harm as severe as `policy.dissent` which the majority does not. Anything else: `NeedsAdjudication`.

Pure and deterministic: the same annotations in any order give the same judgement, so repeating the step is safe.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from annotation.agreement.compare import check, compare, pairwise
from annotation.agreement.reliability import Reliability
from annotation.core import Annotation, Item, Judgement, Reason, Severity
from annotation.judge.merge import merged
from annotation.judge.policy import JudgePolicy, rank
from services.errors import InvalidInput


class Conflict(StrEnum):
    """Why an adjudicator must decide."""

    NO_MAJORITY = "no_majority"
    DISSENT = "dissent"  # one expert sees severe harm that the majority does not
    UNUSABLE = "unusable"  # an adjudicator's verdict does not say what its kind asks


@dataclass(frozen=True)
class NeedsMore:
    """
    Attributes:
        have, need: counted verdicts, and how many the policy asks.
        done_by: who must not get the item again: all who annotated it, counted or not.
        unreliable: of these, whose verdict does not count.
        unusable: ids of annotations that do not say what their kind asks.
    """

    have: int
    need: int
    done_by: tuple[str, ...]
    unreliable: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        return self.need - self.have


@dataclass(frozen=True)
class NeedsAdjudication:
    """
    Attributes:
        field: NO_MAJORITY: of `Verdict`, on which the two experts of most weight that disagree do so.
        annotations: those that counted.
        agreement: share of pairs of them that agree.
    """

    reason: Conflict
    field: str
    annotations: tuple[Annotation, ...]
    agreement: float | None


def current(annotations: Iterable[Annotation], deleted: Collection[str] = ()) -> list[Annotation]:
    """One annotation an expert, the latest by `updated_at`, in the order of their ids. `deleted`: ids."""
    by_id: dict[str, Annotation] = {}
    for one in annotations:
        if one.id not in deleted and (one.id not in by_id or _age(one) > _age(by_id[one.id])):
            by_id[one.id] = one
    by_expert: dict[str, Annotation] = {}
    for one in by_id.values():
        if one.annotator not in by_expert or _age(one) > _age(by_expert[one.annotator]):
            by_expert[one.annotator] = one
    return sorted(by_expert.values(), key=lambda one: one.id)


def judge(
    item: Item,
    annotations: Iterable[Annotation],
    reliability: Reliability,
    policy: JudgePolicy,
    *,
    deleted: Collection[str] = (),
) -> Judgement | NeedsMore | NeedsAdjudication:
    """What `annotations` on `item` come to. A judgement's `made_at` is the latest `updated_at` it rests on.

    Raises:
        InvalidInput: a gold item, which is scored and not judged, or an annotation of another item or kind.
    """
    if item.reason is Reason.GOLD or item.gold is not None:
        raise InvalidInput("gold items are scored, not judged", field="item.reason")
    latest = current(annotations, deleted)
    if any((one.item_id, one.kind) != (item.id, item.kind) for one in latest):
        raise InvalidInput("an annotation is of another item or kind", field="annotations")

    usable = [one for one in latest if _usable(item, one)]
    experts = [one for one in usable if one.annotator not in policy.adjudicators]
    counted = [one for one in experts if not reliability.of(one.annotator, item.kind).unreliable]
    agreement = pairwise(item.kind, [one.verdict for one in counted])

    if chosen := [one for one in latest if one.annotator in policy.adjudicators]:
        last = max(chosen, key=_age)
        if last not in usable:
            return NeedsAdjudication(Conflict.UNUSABLE, "", tuple(counted), agreement)
        return _judgement(item, last, [last], [1.0], [*counted, last], agreement)

    worst = max((one.verdict.severity for one in counted), key=rank, default=Severity.NONE)
    need = policy.needed(item, worst)
    if len(counted) < need:
        return NeedsMore(
            len(counted),
            need,
            tuple(sorted(one.annotator for one in latest)),
            tuple(sorted(one.annotator for one in experts if one not in counted)),
            tuple(one.id for one in latest if one not in usable),
        )

    weights = {one.id: reliability.of(one.annotator, item.kind).weight for one in counted}
    supporters = _majority(item, counted, weights)
    if supporters is None:
        return NeedsAdjudication(
            Conflict.NO_MAJORITY, _difference(item, counted, weights), tuple(counted), agreement
        )
    verdict_severity = max((one.verdict.severity for one in supporters), key=rank)
    if rank(worst) >= rank(policy.dissent) > rank(verdict_severity):
        return NeedsAdjudication(Conflict.DISSENT, "severity", tuple(counted), agreement)
    return _judgement(item, None, supporters, [weights[one.id] for one in supporters], counted, agreement)


def _age(annotation: Annotation) -> tuple[object, ...]:
    """Ties of time are broken by what is there, never by the order of arrival."""
    return annotation.updated_at, annotation.created_at, annotation.id, repr(annotation.verdict)


def _usable(item: Item, annotation: Annotation) -> bool:
    try:
        check(item.kind, annotation.verdict, len(item.alternatives))
    except InvalidInput:
        return False
    return True


def _majority(
    item: Item, counted: Sequence[Annotation], weights: dict[str, float]
) -> list[Annotation] | None:
    """Those that agree with the verdict of most support; None where that is not most experts and most weight."""

    def support(of: Annotation) -> list[Annotation]:
        return [one for one in counted if one is of or compare(item.kind, of.verdict, one.verdict).agree]

    groups = [(of, support(of)) for of in counted]
    _, best = min(
        groups,
        key=lambda group: (
            -len(group[1]),
            -round(sum(weights[one.id] for one in group[1]), 9),
            group[0].created_at,
            group[0].id,
        ),
    )
    heavy = sum(weights[one.id] for one in best) > sum(weights.values()) / 2
    return best if len(best) > len(counted) / 2 and heavy else None


def _difference(item: Item, counted: Sequence[Annotation], weights: dict[str, float]) -> str:
    order = sorted(counted, key=lambda one: (-weights[one.id], one.id))
    fields = (
        compare(item.kind, a.verdict, b.verdict).field for i, a in enumerate(order) for b in order[i + 1 :]
    )
    return next((field for field in fields if field), "")


def _judgement(
    item: Item,
    adjudicator: Annotation | None,
    supporters: Sequence[Annotation],
    weights: Sequence[float],
    used: Sequence[Annotation],
    agreement: float | None,
) -> Judgement:
    return Judgement(
        item=item,
        verdict=merged(item.kind, supporters, weights),
        annotations=tuple(sorted(used, key=lambda one: one.id)),
        agreement=agreement,
        adjudicated=adjudicator is not None,
        made_at=max(one.updated_at for one in used),
    )
