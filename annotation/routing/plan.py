"""What routing looks at, and what it decided: a dry run prints this, a real run does it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from annotation.core import Kind, Reason
from annotation.routing.policy import RiskRule, RoutingPolicy

if TYPE_CHECKING:
    from annotation.routing.withheld import Withheld

Key = tuple[str, Kind]
"""One item an interaction and kind."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer that could be sent, or a gold item.

    Attributes:
        id: of the interaction, or the gold item's own.
        created_at: of the interaction; aware.
        digest: of prompt and answer (`features.content_digest`); empty = never a duplicate.
        caller: whose request it was; flags take turns between callers.
        model_id: what answered.
        score: raw, 0 to 1 (`score.score`).
        risk, missed: of `risk.Curve`, at that score.
        flagged: a user asked for review.
        consent: use as instruction data is allowed; without it nothing is sent.
        held: de-identification was in doubt.
        gold: its right verdict is known. Gold needs no consent and has no age.
    """

    id: str
    kind: Kind
    created_at: datetime
    digest: str = ""
    speciality: str = "general"
    modality: str = ""
    task: str = ""
    caller: str = ""
    model_id: str = ""
    risk: float = 0.0
    score: float = 0.0
    missed: float = 1.0
    flagged: bool = False
    consent: bool = False
    held: bool = False
    gold: bool = False


@dataclass(frozen=True)
class Spent:
    """What earlier runs did.

    Attributes:
        today: items sent in this UTC day, by reason, kind and speciality.
        sent: all items ever sent.
        digests: by kind and digest, the id that was sent.
        drawn: members of the random share that earlier runs did not send (`Plan.drawn`). They were counted in the
            weights of those runs, so they get no second draw.
    """

    today: Mapping[tuple[Reason, Kind, str], int] = field(default_factory=dict)
    sent: Set[Key] = frozenset()
    digests: Mapping[tuple[Kind, str], str] = field(default_factory=dict)
    drawn: Set[Key] = frozenset()


class Why(StrEnum):
    """Why a candidate is not sent; the first that applies."""

    ALREADY_SENT = "already_sent"
    HELD = "held"
    NO_CONSENT = "no_consent"
    TOO_OLD = "too_old"
    DUPLICATE = "duplicate"
    BUDGET = "budget"
    BELOW_THRESHOLD = "below_threshold"
    GOLD_NOT_NEEDED = "gold_not_needed"


class Placement(NamedTuple):
    """The fate of one candidate: sent for `reason`, or not because of `why`.

    Attributes:
        of: DUPLICATE: the id that is or was sent in its place.
        weight: how many interactions of the random share its verdict stands for; 0 outside the share. A duplicate's
            counts for the verdict of `of`.
        draw: its number of the random share, [0, 1); a member where it is below `policy.random_share`.
    """

    candidate: Candidate
    reason: Reason | None
    why: Why | None
    of: str = ""
    weight: float = 0.0
    draw: float = 1.0


@dataclass(frozen=True)
class Plan:
    """Every candidate once.

    Attributes:
        sent: in the order of sending, which tells nothing of the reasons.
        withheld: a sequence of placements, in the order of id and kind.
        drawn: members of the random share without budget, or duplicates; to be kept for `Spent.drawn`.
        uncovered: by kind and speciality, members of the share of which not one could be sent: raise the budget or
            lower the share, for no weight can stand for them.
    """

    policy: RoutingPolicy
    now: datetime
    sent: tuple[Placement, ...]
    withheld: Withheld
    drawn: frozenset[Key] = frozenset()
    uncovered: Mapping[tuple[Kind, str], int] = field(default_factory=dict)

    def table(self) -> list[dict[str, Any]]:
        """Counts by outcome (a reason or a why), kind and speciality: sent first, then withheld."""
        sent = Counter(
            (str(one.reason), str(one.candidate.kind), one.candidate.speciality) for one in self.sent
        )
        return [
            {"sent": of is sent, "outcome": outcome, "kind": kind, "speciality": speciality, "count": count}
            for of in (sent, self.withheld.counts())
            for (outcome, kind, speciality), count in sorted(of.items())
        ]

    def explain(self, id: str) -> list[str]:
        """One sentence for each item of the interaction `id`; none where it was no candidate."""
        sent = [one for one in self.sent if one.candidate.id == id]
        return [f"{one.candidate.kind}: {self._sentence(one)}" for one in (*sent, *self.withheld.of(id))]

    def to_json(self) -> dict[str, Any]:
        return {
            "now": self.now.astimezone(UTC).isoformat(),
            "policy": self.policy.model_dump(mode="json"),
            "sent": len(self.sent),
            "withheld": len(self.withheld),
            "thinned": sum(self.withheld.why(key) is not Why.DUPLICATE for key in self.drawn),
            "uncovered": [
                {"kind": str(kind), "speciality": speciality, "count": count}
                for (kind, speciality), count in sorted(self.uncovered.items())
            ],
            "table": self.table(),
        }

    def _sentence(self, one: Placement) -> str:
        item, policy = one.candidate, self.policy
        share = f"its draw {one.draw:.4f} is below the random share {policy.random_share:g}"
        risky = {
            RiskRule.THRESHOLD: f"risk {item.risk:.3f}, threshold {policy.risk_threshold:g}",
            RiskRule.MISS_RATE: f"{item.missed:.3f} of unacceptable answers score no higher, miss rate {policy.miss_rate:g}",
            RiskRule.TOP: f"risk {item.risk:.3f}, the {policy.risk_top} riskiest a day are sent",
        }[policy.risk_rule]
        sentences = {
            Reason.GOLD: f"sent as gold, {policy.gold_share:.1%} of what is sent",
            Reason.RANDOM: f"sent for the random share: {share}; it stands for {one.weight:.2f} interactions",
            Reason.FLAG: "sent because a user flagged it",
            Reason.RISK: f"sent for its risk: {risky}",
            Why.ALREADY_SENT: "not sent: it was sent before",
            Why.HELD: "not sent: de-identification was in doubt and a person must look first",
            Why.NO_CONSENT: "not sent: there is no consent to use it as instruction data",
            Why.TOO_OLD: f"not sent: it is older than {policy.max_age_days:g} days",
            Why.DUPLICATE: f"not sent: {one.of} asks and answers the same and is sent in its place",
            Why.BUDGET: "not sent: no budget is left"
            + (f" for the random share; {share}" if (item.id, item.kind) in self.drawn else f"; {risky}"),
            Why.BELOW_THRESHOLD: f"not sent: not risky enough ({risky}), not flagged, not in the random share",
            Why.GOLD_NOT_NEEDED: "not sent: there are enough gold items among those sent, or no gold budget",
        }
        found: Reason | Why = one.reason or one.why or Why.BELOW_THRESHOLD
        return sentences[found]
