"""Raw score → the probability that an expert would not accept the answer, learnt from verdicts.

- **Isotonic regression** (pool adjacent violators) of "not accepted" on the score, one curve for each kind of item, linear between
  its blocks. B. Zadrozny, C. Elkan, KDD 2002, 694–699.
- **Split conformal**: `missed`, the share of unacceptable answers that score this low or lower, with one added for the answer in
  question. Sending all with missed > α leaves at most α of the unacceptable ones unsent, whatever their
  distribution (on average over calibration samples). V. Vovk et al., Algorithmic Learning in a Random World, 2005; weighted: R. J. Tibshirani et al.,
  NeurIPS 2019.

**Only the random share's verdicts count** (`Outcome.weight`). Flags are raised because an answer is bad: among flagged answers
of any score more are bad than among all of that score, and conformal needs a sample exchangeable with what comes. Answers sent for risk could be
weighted by their probability of being sent, but with budgets, turns and thresholds that move nobody knows it.

**Prior**: without verdicts a risk is `prior(score)` = 0.1 + 0.4·score. It claims the order alone: somewhere between one in ten and one in two,
says nothing of the model at hand and is worth PRIOR_WEIGHT verdicts, so it fades as verdicts come in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from annotation.core import Decision, Judgement, Kind, Reason
from annotation.routing.score import SCORE_VERSION
from evaluation.report.calibration import calibration
from services.errors import InvalidInput

Array = NDArray[np.float64]
PRIOR_WEIGHT = 10.0
MAX_OUTCOMES = 200_000
MAX_WEIGHT = 1_000_000
FOLDS = 5
_GRID = np.linspace(0, 1, 11)

Share = Annotated[float, Field(ge=0, le=1)]


def prior(value: float) -> float:
    return 0.1 + 0.4 * value


@dataclass(frozen=True)
class Outcome:
    """A judged answer.

    Attributes:
        score: as it was when the answer was routed.
        weight: interactions of the random share that its verdict stands for: its own `Placement.weight` plus those of the
            duplicates it was sent in place of; 0 = it does not calibrate.
    """

    id: str
    kind: Kind
    score: float
    accepted: bool
    weight: float

    @classmethod
    def of(cls, judgement: Judgement, score: float, weight: float) -> Outcome | None:
        """None for kinds without a decision (preferences)."""
        item = judgement.item
        if judgement.verdict.decision is None or item.reason is Reason.GOLD:
            return None
        return cls(item.id, item.kind, score, judgement.verdict.decision is Decision.ACCEPT, weight)


class Row(BaseModel):
    """Of a reliability table: answers with a predicted risk in a range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(ge=0)
    predicted: Share
    observed: Share


class Curve(BaseModel):
    """One kind's calibration.

    Attributes:
        verdicts: of the random share.
        stand_for: interactions, the sum of the weights.
        knots: (score, risk), rising in both; risk is linear between them and constant outside.
        unacceptable: (score, weight) of answers not accepted, by score.
        ece: expected calibration error over 15 bins, each verdict predicted by a curve fitted without it (5 folds); None with
            fewer than 5 verdicts. Few verdicts give a high ECE by chance alone.
        reliability: the bins' table, by the same predictions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdicts: int = Field(ge=0)
    stand_for: float = Field(ge=0, allow_inf_nan=False)
    knots: tuple[tuple[Share, Share], ...] = Field(min_length=1, max_length=MAX_OUTCOMES)
    unacceptable: tuple[tuple[Share, Annotated[float, Field(gt=0, allow_inf_nan=False)]], ...] = Field(
        (), max_length=MAX_OUTCOMES
    )
    ece: Share | None = None
    reliability: tuple[Row, ...] = ()

    @model_validator(mode="after")
    def _rising(self) -> Curve:
        steps = np.diff(np.asarray(self.knots), axis=0)
        if (steps[:, 0] <= 0).any() or (steps[:, 1] < 0).any():
            raise ValueError("knots must rise")
        return self

    def risks(self, scores: Array) -> Array:
        """Probabilities that an expert would not accept answers of these raw scores, 0 to 1."""
        x, y = np.asarray(self.knots).T
        return np.asarray(np.interp(scores, x, y))

    def missed(self, scores: Array) -> Array:
        """See the module; 1 where too little is known, so that the answer is sent."""
        if not self.unacceptable:
            return np.ones(len(scores))
        known, weights = np.asarray(self.unacceptable).T
        below = np.concatenate([[0.0], np.cumsum(weights)])[np.searchsorted(known, scores, side="right")]
        own = weights.max()  # the answer's own weight is at most this
        return np.asarray((below + own) / (weights.sum() + own))


class RiskModel(BaseModel):
    """Curves by kind; JSON by `model_dump_json`, read with `load`. A kind without a curve has the prior.

    `model_digest` says whose answers were judged: another model's answers need their own verdicts sooner or later.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: Literal[1] = 1
    score_version: Literal[1] = SCORE_VERSION
    model_digest: str = Field("", max_length=64)
    curves: dict[Kind, Curve] = Field(default_factory=dict)

    @property
    def verdicts(self) -> int:
        return sum(curve.verdicts for curve in self.curves.values())

    def curve(self, kind: Kind) -> Curve:
        """The kind's own, or the prior's."""
        return self.curves.get(kind) or _curve([])


def load(data: str | bytes | Mapping[str, Any]) -> RiskModel:
    """Raises InvalidInput: no such JSON, or of another version; the message names the field."""
    try:
        if isinstance(data, str | bytes):
            return RiskModel.model_validate_json(data)
        return RiskModel.model_validate(dict(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise InvalidInput(first["msg"], field=".".join(map(str, ("risk_model", *first["loc"])))) from None


def fit(outcomes: Iterable[Outcome], model_digest: str = "") -> RiskModel:
    """Outcomes of weight 0 are left out; those of other kinds do not mix. Order does not matter.

    Raises:
        InvalidInput: a score or weight out of range, or more than MAX_OUTCOMES of a kind.
    """
    kinds: dict[Kind, list[Outcome]] = {}
    for one in outcomes:
        if not 0 <= one.score <= 1:
            raise InvalidInput("must be 0 to 1", field="outcomes.score")
        if one.weight and not 1 <= one.weight <= MAX_WEIGHT:
            raise InvalidInput(f"must be 0, or 1 to {MAX_WEIGHT:,}", field="outcomes.weight")
        if one.weight:
            kinds.setdefault(one.kind, []).append(one)
    if any(len(of) > MAX_OUTCOMES for of in kinds.values()):
        raise InvalidInput(f"at most {MAX_OUTCOMES:,} of a kind", field="outcomes")
    return RiskModel(
        model_digest=model_digest, curves={kind: _checked_curve(kinds[kind]) for kind in sorted(kinds)}
    )


def _curve(outcomes: Sequence[Outcome]) -> Curve:
    scores = np.array([one.score for one in outcomes])
    refused = np.array([not one.accepted for one in outcomes], dtype=np.float64)
    weights = np.array([one.weight for one in outcomes])
    # The prior as verdicts spread over all scores. Equal scores are one point: PAVA must not order them.
    x, where = np.unique(np.concatenate([_GRID, scores]), return_inverse=True)
    w = np.concatenate([np.full(len(_GRID), PRIOR_WEIGHT / len(_GRID)), weights])
    y = np.concatenate([[prior(float(point)) for point in _GRID], refused])
    total = np.asarray(np.bincount(where, weights=w), dtype=np.float64)
    knots = _ends(x, *_rising(np.bincount(where, weights=w * y) / total, total))
    bad = sorted((one.score, one.weight) for one in outcomes if not one.accepted)
    return Curve(verdicts=len(outcomes), stand_for=float(weights.sum()), knots=knots, unacceptable=tuple(bad))


def _rising(y: Array, weights: Array) -> tuple[Array, NDArray[np.intp]]:
    """The nearest curve that never falls, and where its constant pieces begin and the last ends."""
    if (np.diff(y) > 0).all():  # it is that itself, as the prior is: nothing to import for
        return np.clip(y, 0, 1), np.arange(len(y) + 1)
    from scipy.optimize import isotonic_regression

    fitted = isotonic_regression(y, weights=weights)
    return np.clip(fitted.x, 0, 1), fitted.blocks


def _ends(x: Array, y: Array, blocks: NDArray[np.intp]) -> tuple[tuple[float, float], ...]:
    """Both ends of each constant piece."""
    kept = np.unique(np.concatenate([blocks[:-1], blocks[1:] - 1]))
    return tuple((float(x[place]), float(y[place])) for place in kept)


def _checked_curve(outcomes: Sequence[Outcome]) -> Curve:
    ordered = sorted(outcomes, key=lambda one: one.id)
    curve = _curve(ordered)
    if len(ordered) < FOLDS:
        return curve
    fold = np.array([hashlib.sha256(one.id.encode()).digest()[0] % FOLDS for one in ordered])
    predicted = np.zeros(len(ordered))
    scores = np.array([one.score for one in ordered])
    for k in range(FOLDS):
        rest = _curve([one for one, where in zip(ordered, fold, strict=True) if where != k])
        predicted[fold == k] = rest.risks(scores[fold == k])
    # The suite's ECE knows no weights: each verdict comes as often as it stands for, rounded so that sums stay true.
    weights = np.array([one.weight for one in ordered])
    weights *= min(1.0, MAX_OUTCOMES / weights.sum())
    times = np.diff(np.floor(np.cumsum(weights) + 0.5), prepend=0).astype(np.int64)
    accepted = np.array([one.accepted for one in ordered], dtype=np.float64)
    found = calibration(np.repeat(1 - predicted, times).tolist(), np.repeat(accepted, times).tolist())
    if found is None:
        return curve
    counts = [
        Row(n=one.n, predicted=1 - one.confidence, observed=1 - one.accuracy) for one in reversed(found.bins)
    ]
    return curve.model_copy(update={"ece": found.ece, "reliability": tuple(counts)})
