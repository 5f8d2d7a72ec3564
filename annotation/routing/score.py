"""Features → a raw score of risk. It gives an order; `risk` turns it into a probability."""

from __future__ import annotations

from math import exp
from typing import Literal

from annotation.routing.features import Features

SCORE_VERSION: Literal[1] = 1
"""Of this formula. A model fitted on another one's scores is refused."""

_WEIGHTS = {"mean": 3.0, "worst": 2.0, "entropy": 2.0, "picture": 3.0, "disagreement": 4.0}
_UNKNOWN = 0.5
# Codes of a good picture are far less likely than words of a good text: nats that count as one.
_PICTURE_NATS = 4.0


def score(features: Features) -> float:
    """0 (sure) to 1: the weighted mean of what is known; 0.5 where nothing is. Rises with every sign of doubt.

    Signs, each 0 to 1: 1 − e^mean_logprob, 1 − e^min_logprob, 1 − e^−entropy, the like for pictures, and the share of
    resampled answers that differ. A truncated answer halves what is left to 1.
    """
    signs: dict[str, float] = {}
    if features.mean_logprob is not None:
        signs["mean"] = 1 - exp(features.mean_logprob)
    if features.min_logprob is not None:
        signs["worst"] = 1 - exp(features.min_logprob)
    if features.mean_entropy is not None:
        signs["entropy"] = 1 - exp(-features.mean_entropy)
    if features.picture_logprob is not None:
        signs["picture"] = 1 - exp(features.picture_logprob / _PICTURE_NATS)
    if features.agreement is not None:
        signs["disagreement"] = 1 - features.agreement
    weight = sum(_WEIGHTS[name] for name in signs)
    found = sum(_WEIGHTS[name] * value for name, value in signs.items()) / weight if weight else _UNKNOWN
    return (1 + found) / 2 if features.truncated else found
