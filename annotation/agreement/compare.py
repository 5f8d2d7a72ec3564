"""Do two verdicts agree? One definition for each kind of item.

CHAT        decision; where both edit, the text after normalisation
REPORT      the same, then the missing findings, then the regions
PICTURE     decision, realism and agreement with the prompt within one point, regions
PREFERENCE  the best alternative, then two thirds of the pairs in the same order

Error category, severity and comment are not compared: they describe a verdict and do not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from annotation.agreement.ranking import concordance
from annotation.agreement.regions import matched
from annotation.agreement.text import normalised
from annotation.core import Decision, Kind, Verdict
from services.errors import InvalidInput

IOU = 0.5  # as PASCAL VOC counts a detection: M. Everingham et al., IJCV 88 (2010) 303–338
RATING = 1
CONCORDANCE = 2 / 3  # of three alternatives, one pair of neighbours below the best may be swapped


@dataclass(frozen=True)
class Comparison:
    """`field`: of `Verdict`, the first that differs; empty where the two agree."""

    field: str = ""

    @property
    def agree(self) -> bool:
        return not self.field


def check(kind: Kind, verdict: Verdict, alternatives: int = 0) -> None:
    """Raises InvalidInput: the verdict does not say what its kind asks; the message names the field."""
    if kind is Kind.PREFERENCE:
        if (
            sorted(verdict.ranking) != list(range(alternatives or len(verdict.ranking)))
            or not verdict.ranking
        ):
            raise InvalidInput("must name every alternative once", field="ranking")
        return
    if verdict.decision is None:
        raise InvalidInput(f"is needed for a {kind}", field="decision")
    if verdict.decision is Decision.EDIT and kind is not Kind.PICTURE and not (verdict.text or "").strip():
        raise InvalidInput("an edit needs the whole corrected answer", field="text")
    for name in ("realism", "agreement"):
        value = getattr(verdict, name)
        if value is not None and not 1 <= value <= 5:
            raise InvalidInput("must be 1 to 5", field=name)
    for region in verdict.regions:
        sides = (region.x, region.y, region.width, region.height)
        if not all(0 <= side <= 1 for side in sides):  # NaN fails too
            raise InvalidInput("x, y, width and height must be 0 to 1", field="regions")


def compare(kind: Kind, first: Verdict, second: Verdict) -> Comparison:
    """Symmetric; not transitive where a tolerance applies (ratings, regions, rankings)."""
    for field, same in _RULES[kind]:
        if not same(first, second):
            return Comparison(field)
    return Comparison()


def pairwise(kind: Kind, verdicts: Sequence[Verdict]) -> float | None:
    """Share of pairs that agree; None with fewer than two verdicts."""
    pairs = [compare(kind, a, b).agree for index, a in enumerate(verdicts) for b in verdicts[index + 1 :]]
    return sum(pairs) / len(pairs) if pairs else None


def findings(verdict: Verdict) -> frozenset[str]:
    return frozenset(normalised(finding) for finding in verdict.missing)


def _text(a: Verdict, b: Verdict) -> bool:
    return a.decision is not Decision.EDIT or normalised(a.text or "") == normalised(b.text or "")


def _near(name: str) -> Callable[[Verdict, Verdict], bool]:
    def same(a: Verdict, b: Verdict) -> bool:
        first, second = getattr(a, name), getattr(b, name)
        if first is None or second is None:
            return first is second
        return abs(int(first) - int(second)) <= RATING

    return same


def _regions(a: Verdict, b: Verdict) -> bool:
    return len(a.regions) == len(b.regions) == matched(a.regions, b.regions, IOU)


def _ranking(a: Verdict, b: Verdict) -> bool:
    if len(a.ranking) != len(b.ranking) or a.ranking[:1] != b.ranking[:1]:
        return False
    return concordance(a.ranking, b.ranking) >= CONCORDANCE


def _decision(a: Verdict, b: Verdict) -> bool:
    return a.decision is b.decision


def _missing(a: Verdict, b: Verdict) -> bool:
    return findings(a) == findings(b)


_Rule = tuple[str, Callable[[Verdict, Verdict], bool]]
_RULES: dict[Kind, tuple[_Rule, ...]] = {
    Kind.CHAT: (("decision", _decision), ("text", _text)),
    Kind.REPORT: (("decision", _decision), ("text", _text), ("missing", _missing), ("regions", _regions)),
    Kind.PICTURE: (
        ("decision", _decision),
        ("realism", _near("realism")),
        ("agreement", _near("agreement")),
        ("regions", _regions),
    ),
    Kind.PREFERENCE: (("ranking", _ranking),),
}
