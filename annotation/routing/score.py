"""Features → a raw score of risk. It gives an order; `risk` turns it into a probability."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from annotation.routing.features import Features

SCORE_VERSION: Literal[1] = 1
"""Of this formula. A model fitted on another one's scores is refused."""

SIGNS = ("mean_logprob", "min_logprob", "mean_entropy", "picture_logprob", "agreement")
"""Of `Features`, what the score is made of."""

Floats = NDArray[np.float64]
_WEIGHTS = {"mean": 3.0, "worst": 2.0, "entropy": 2.0, "picture": 3.0, "disagreement": 4.0}
_UNKNOWN = 0.5
# Codes of a good picture are far less likely than words of a good text: nats that count as one.
_PICTURE_NATS = 4.0


def score(features: Features) -> float:
    """0 (sure) to 1: the weighted mean of what is known; 0.5 where nothing is. Rises with every sign of doubt.

    Signs, each 0 to 1: 1 − e^mean_logprob, 1 − e^min_logprob, 1 − e^−entropy, the like for pictures, and the share of
    resampled answers that differ. A truncated answer halves what is left to 1.
    """
    known = (getattr(features, name) for name in SIGNS)
    columns = {name: [nan if value is None else value] for name, value in zip(SIGNS, known, strict=True)}
    return float(scores(columns, [features.truncated])[0])


def scores(signs: Mapping[str, ArrayLike], truncated: ArrayLike) -> Floats:
    """`score` of many answers: a column for each of SIGNS, NaN where the figure is not known, and one of booleans."""
    mean, worst, entropy, picture, agreement = (np.asarray(signs[name], dtype=np.float64) for name in SIGNS)
    doubts = {
        "mean": 1 - _exp(mean),
        "worst": 1 - _exp(worst),
        "entropy": 1 - _exp(-entropy),
        "picture": 1 - _exp(picture / _PICTURE_NATS),
        "disagreement": 1 - agreement,
    }
    total, weight = np.zeros(len(mean)), np.zeros(len(mean))
    for name, values in doubts.items():
        known = ~np.isnan(values)
        total[known] += _WEIGHTS[name] * values[known]
        weight[known] += _WEIGHTS[name]
    found = np.divide(total, weight, out=np.full(len(mean), _UNKNOWN), where=weight > 0)
    return np.asarray(np.where(truncated, (1 + found) / 2, found))


def _exp(values: Floats) -> Floats:
    """Of the C library: numpy's own differs in the last place from one processor to another."""
    return np.fromiter(map(exp, values.tolist()), np.float64, len(values))
