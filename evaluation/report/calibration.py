"""Does the model know when it is right? Expected calibration error and risk against coverage.

Confidence is the geometric mean of the answer's token probabilities; being right is a binary score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies in (low, high]; `low` itself too in the first."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """
    Attributes:
        ece: mean over answers of |accuracy − confidence| of their bin (15 of equal width).
        brier: mean squared difference of confidence and being right.
        aurc: area under the risk–coverage curve; 0 is best.
        coverage, risk: the curve: share of answers kept, surest first, and the share of these that is wrong.
        risk_at_80: risk where the surest 80 % are kept.
    """

    n: int
    accuracy: float
    ece: float
    brier: float
    aurc: float
    risk_at_80: float
    bins: tuple[Bin, ...]
    coverage: tuple[float, ...]
    risk: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        values = {
            name: getattr(self, name) for name in ("n", "accuracy", "ece", "brier", "aurc", "risk_at_80")
        }
        return {
            **values,
            "bins": [one.__dict__ for one in self.bins],
            "risk_coverage": [list(point) for point in zip(self.coverage, self.risk, strict=True)],
        }


def calibration(
    confidences: Sequence[float], right: Sequence[float], points: int = 100
) -> Calibration | None:
    """None where no answer has a confidence. Equal confidences enter the curve together."""
    sure: NDArray[np.float64] = np.clip(np.asarray(confidences, dtype=np.float64), 0, 1)
    good: NDArray[np.float64] = np.asarray(right, dtype=np.float64)
    if not len(sure):
        return None
    edges = np.linspace(0, 1, BINS + 1)
    where = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, BINS - 1)
    bins = tuple(
        Bin(
            float(edges[k]),
            float(edges[k + 1]),
            int(inside.sum()),
            float(sure[inside].mean()),
            float(good[inside].mean()),
        )
        for k in range(BINS)
        if (inside := where == k).any()
    )
    ece = sum(one.n * abs(one.accuracy - one.confidence) for one in bins) / len(sure)
    coverage, risk = _curve(sure, good)
    keep = np.unique(np.linspace(0, len(coverage) - 1, min(points, len(coverage))).round().astype(int))
    return Calibration(
        n=len(sure),
        accuracy=float(good.mean()),
        ece=float(ece),
        brier=float(((sure - good) ** 2).mean()),
        aurc=float(np.sum(risk * np.diff(coverage, prepend=0.0))),
        risk_at_80=float(risk[np.searchsorted(coverage, 0.8 - 1e-12)]),
        bins=bins,
        coverage=tuple(float(value) for value in coverage[keep]),
        risk=tuple(float(value) for value in risk[keep]),
    )


def _curve(
    sure: NDArray[np.float64], good: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    order = np.argsort(-sure, kind="stable")
    wrong = np.cumsum(1 - good[order])
    kept = np.arange(1, len(order) + 1)
    last = np.append(np.diff(sure[order]) != 0, True)  # of each run of equal confidences
    return kept[last] / len(order), wrong[last] / kept[last]
