"""Learning rates over a run."""

from __future__ import annotations

import math


def rate_at(step: int, steps: int, peak: float, warmup: int, floor: float = 0.03) -> float:
    """Linear warm-up, then a cosine down to `floor` of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))
