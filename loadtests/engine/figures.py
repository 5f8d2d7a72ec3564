"""Numbers out of samples: percentiles, rows of the table, ratios between engines of the same round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from loadtests.engine.jobs import Objective, Outcome


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` (0…1) of the values lie, linear between neighbours; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True)
class Row:
    """One engine at one work; times in milliseconds, rates per second, None where a number does not apply.

    Rates are medians over the rounds; times are percentiles over the answers of all rounds.
    """

    work: str
    callers: int | None
    engine: str
    model: str
    dtype: str
    output_tokens_per_s: float | None = None
    ttft_p50_ms: float | None = None
    ttft_p99_ms: float | None = None
    itl_p50_ms: float | None = None
    pictures_per_s: float | None = None
    goodput_rps: float | None = None
    runs: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Ratio:
    """How many times another's figure ours is, over the rounds (and models) in which both ran."""

    work: str
    callers: int | None
    ours_over: str
    ratio_median: float
    ratio_min: float
    ratio_max: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def tokens_per_s(outcome: Outcome) -> float:
    return sum(sample.tokens for sample in outcome.samples) / outcome.wall_s


def pictures_per_s(outcome: Outcome) -> float:
    return sum(sample.pictures for sample in outcome.samples) / outcome.wall_s


def prompt_tokens_read(outcome: Outcome) -> int:
    """Tokens that the model read for prompts: all but those it had drawn itself. The last of an answer is never read."""
    if outcome.read_tokens is None:
        raise ValueError("this engine does not tell what it read")
    return outcome.read_tokens - sum(sample.tokens - 1 for sample in outcome.samples)


def meets(outcome: Outcome, objective: Objective) -> bool:
    """Whether a job kept the objective at the 99th percentile."""
    if not outcome.complete:
        return False
    first = percentile([sample.ttft_ms for sample in outcome.samples], 0.99)
    gap = percentile([gap for sample in outcome.samples for gap in sample.gaps_ms], 0.99)
    return (first or 0.0) <= objective.ttft_ms and (gap or 0.0) <= objective.itl_ms


def row(name: Row, outcomes: Sequence[Outcome], goodput: Sequence[float] = ()) -> Row:
    """`name` with the figures of its rounds; `goodput` is of mixed work, answers a second."""
    if goodput:
        name = replace(name, goodput_rps=statistics.median(goodput), runs=len(goodput))
    if not outcomes:
        return name
    samples = [sample for outcome in outcomes for sample in outcome.samples]
    first = [sample.ttft_ms for sample in samples]
    drew = any(sample.pictures for sample in samples)
    return replace(
        name,
        output_tokens_per_s=statistics.median(map(tokens_per_s, outcomes)),
        ttft_p50_ms=percentile(first, 0.5),
        ttft_p99_ms=percentile(first, 0.99),
        itl_p50_ms=percentile([gap for sample in samples for gap in sample.gaps_ms], 0.5),
        pictures_per_s=statistics.median(map(pictures_per_s, outcomes)) if drew else None,
        runs=name.runs or len(outcomes),
    )


def ratio(
    work: str, callers: int | None, ours_over: str, pairs: Sequence[tuple[float, float]]
) -> Ratio | None:
    """Over (ours, the other's) figures of the same rounds; None where there is nothing to divide by."""
    quotients = [ours / other for ours, other in pairs if other > 0]
    if not quotients:
        return None
    return Ratio(work, callers, ours_over, statistics.median(quotients), min(quotients), max(quotients))
