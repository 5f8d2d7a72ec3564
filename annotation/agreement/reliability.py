"""How reliable each annotator is, by kind of item: gold tasks first, agreement with peers as a weak second source.

    p ~ Beta(a, b),   a = 4 + right,   b = 1 + wrong

Gold of other kinds and votes on ordinary items count in part: together for at most `OTHER_KINDS` and `PEERS` tasks.
Unreliable is who has seen `MIN_GOLD` gold tasks of the kind and has P(p < FLOOR) ≥ SURE. It asks for evidence of
being bad, not for lack of evidence of being good: a newcomer counts until gold says otherwise. A verdict weighs the log-odds
ln(p / (1 − p)) of the posterior mean, which is the best weight for votes that err independently
(S. Nitzan, J. Paroush, Int. Econ. Rev. 23 (1982) 289–297).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from annotation.agreement.compare import compare
from annotation.agreement.consensus import PRIOR, Peers, Vote, consensus
from annotation.core import Annotation, Item, Kind

FLOOR = 0.75  # accuracy on gold below which a verdict is not worth an expert's time
SURE = 0.95
MIN_GOLD = 5
OTHER_KINDS = 5.0
PEERS = 5.0
_WEIGHT_LIMITS = (0.05, 3.0)  # ln odds of 0.51 and of 0.95


@dataclass(frozen=True)
class Score:
    """Gold tasks of one annotator and kind."""

    right: int = 0
    wrong: int = 0

    @property
    def total(self) -> int:
        return self.right + self.wrong


@dataclass(frozen=True)
class Standing:
    """
    Attributes:
        gold: tasks of this kind.
        a, b: of the posterior Beta.
        lower: 5th percentile of the accuracy; what may be said of the annotator with 95 % certainty.
        doubt: probability that the accuracy is below FLOOR.
    """

    gold: Score
    a: float
    b: float
    lower: float
    doubt: float

    @property
    def mean(self) -> float:
        return self.a / (self.a + self.b)

    @property
    def unreliable(self) -> bool:
        return self.gold.total >= MIN_GOLD and self.doubt >= SURE

    @property
    def weight(self) -> float:
        """Of a verdict in a vote; above 0."""
        low, high = _WEIGHT_LIMITS
        return min(max(math.log(self.a / self.b), low), high)


def standing(score: Score, others: Score = Score(), peers: Peers | None = None) -> Standing:
    """
    Args:
        others: gold of the other kinds.
        peers: votes on ordinary items of this kind.
    """
    from scipy.stats import beta

    a, b = PRIOR
    for right, total, cap in (
        (float(others.right), float(others.total), OTHER_KINDS),
        (peers.right if peers else 0.0, float(peers.votes) if peers else 0.0, PEERS),
    ):
        share = min(1.0, cap / total) if total else 0.0
        a, b = a + share * right, b + share * (total - right)
    a, b = a + score.right, b + score.wrong
    return Standing(score, a, b, float(beta.ppf(0.05, a, b)), float(beta.cdf(FLOOR, a, b)))


@dataclass(frozen=True)
class Reliability:
    """Standing by annotator and kind; who is unknown has the prior's."""

    standings: Mapping[tuple[str, Kind], Standing] = field(default_factory=dict)

    def of(self, annotator: str, kind: Kind) -> Standing:
        return self.standings.get((annotator, kind)) or standing(Score())

    def unreliable(self, kind: Kind) -> list[str]:
        return sorted(
            name for (name, of), standing in self.standings.items() if of is kind and standing.unreliable
        )


def reliability(gold: Mapping[str, Item], annotations: Iterable[Annotation]) -> Reliability:
    """From annotations on gold items (`gold`, by id) and on ordinary ones, as they stand: the latest of each, none deleted.

    A gold verdict is right where `compare` says that it agrees with the item's.

    Raises:
        ValueError: an item of `gold` without its right verdict.
    """
    scores: dict[tuple[str, Kind], Score] = {}
    votes: dict[Kind, list[Vote]] = {}
    for one in annotations:
        item = gold.get(one.item_id)
        if item is None:
            votes.setdefault(one.kind, []).append(Vote(one.item_id, one.annotator, _label(one)))
            continue
        if item.gold is None:
            raise ValueError(f"gold item {item.id} has no right verdict")
        right = compare(one.kind, item.gold, one.verdict).agree
        was = scores.get((one.annotator, one.kind), Score())
        scores[one.annotator, one.kind] = Score(was.right + right, was.wrong + (not right))
    peers = {kind: consensus(of) for kind, of in votes.items()}
    known = set(scores) | {(name, kind) for kind, of in peers.items() for name in of}
    made = {}
    for name, kind in known:
        others = [score for (who, of), score in scores.items() if who == name and of is not kind]
        made[name, kind] = standing(
            scores.get((name, kind), Score()), _sum(others), peers.get(kind, {}).get(name)
        )
    return Reliability(made)


def _sum(scores: Sequence[Score]) -> Score:
    return Score(sum(score.right for score in scores), sum(score.wrong for score in scores))


def _label(annotation: Annotation) -> str | int:
    """What two careful experts should have in common: the decision, or the best alternative."""
    verdict = annotation.verdict
    if annotation.kind is Kind.PREFERENCE:
        return verdict.ranking[0] if verdict.ranking else -1
    return verdict.decision or ""
