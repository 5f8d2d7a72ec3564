"""What became of each request of a load test, and the figures over many.

All latencies count from the moment at which a request was *due*, not from the moment at which the generator got round
to sending it: a stall of the server or of the generator is in the figures of every request that it held up (no
coordinated omission).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtests.engine.figures import percentile

OK = "ok"
SHED = "not_sent"
"""The generator had too many requests open and did not send this one."""
OPEN_LIMIT = 512
"""Requests that may be open at a time; those beyond are counted as `not_sent`."""


@dataclass(frozen=True)
class Sample:
    """One request. Times in seconds.

    Attributes:
        due_s: when it was to be sent, since the start of the test.
        late_s: how much later it was sent.
        first_s: from `due_s` to the first text or picture; None where none came.
        total_s: from `due_s` to the end of the answer, or to its failure.
        tokens: text tokens of the answer.
        prompt_tokens: of the prompt, without those whose cache entries were reused.
        pictures, image_tokens: in the answer.
        new_films: pictures of the prompt that were not asked about before.
        token_s: mean time between two text tokens; None below two tokens, and where a picture came between.
        code: `ok`, or the error's code.
        interaction: id under which the answer is stored; empty = none.
        server_ms: the gateway's own account (`Latency`) by name.
    """

    kind: str
    protocol: str
    due_s: float
    late_s: float
    first_s: float | None
    total_s: float
    tokens: int = 0
    token_s: float | None = None
    code: str = OK
    interaction: str = ""
    server_ms: dict[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    pictures: int = 0
    image_tokens: int = 0
    new_films: int = 0

    @property
    def answered(self) -> bool:
        return self.code == OK


@dataclass(frozen=True)
class Objective:
    """What a good answer is, and what share must be good. Times in seconds.

    Attributes:
        first_s: to the first text; for kinds that begin with a picture, `total_s` counts alone.
        token_s: mean time between two text tokens.
        total_s: to the end.
        share: of the requests due; the rest is the error budget.
    """

    first_s: float = 2.0
    token_s: float = 0.2
    total_s: float = 10.0
    share: float = 0.99

    def met(self, sample: Sample) -> bool:
        if not sample.answered or sample.total_s > self.total_s:
            return False
        slow_start = sample.tokens > 0 and (sample.first_s or 0.0) > self.first_s
        return not slow_start and (sample.token_s or 0.0) <= self.token_s


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """p50, p90 and p99 in seconds; None of nothing."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {f"p{round(100 * share)}": round(percentile(known, share) or 0.0, 4) for share in (0.5, 0.9, 0.99)}


def goodput(samples: Sequence[Sample], objective: Objective) -> float:
    """Share of the requests due that were answered within the objective; 1 of none."""
    return sum(map(objective.met, samples)) / len(samples) if samples else 1.0


def budget_used(samples: Sequence[Sample], objective: Objective) -> float:
    """Share of the error budget that was used: 1 = all of it, 2 = twice what was allowed."""
    allowed = (1 - objective.share) * len(samples)
    bad = len(samples) - sum(map(objective.met, samples))
    if allowed <= 0:
        return float(bad > 0)
    return bad / allowed


def summary(samples: Sequence[Sample], objective: Objective, seconds: float) -> dict[str, Any]:
    """The report of a test whose requests were due over `seconds`: all together, and by kind."""

    def part(chosen: Sequence[Sample]) -> dict[str, Any]:
        answered = [sample for sample in chosen if sample.answered]
        good = goodput(chosen, objective)
        return {
            "due": len(chosen),
            "due_per_s": round(len(chosen) / seconds, 3),
            "answered": len(answered),
            "failed": dict(Counter(sample.code for sample in chosen if not sample.answered)),
            "first_s": spread(sample.first_s for sample in answered),
            "token_s": spread(sample.token_s for sample in answered),
            "total_s": spread(sample.total_s for sample in answered),
            "goodput": round(good, 4),
            "goodput_per_s": round(good * len(chosen) / seconds, 3),
            "error_budget_used": round(budget_used(chosen, objective), 3),
        }

    def by(name: Callable[[Sample], str]) -> dict[str, Any]:
        return {
            each: part([sample for sample in samples if name(sample) == each])
            for each in sorted(set(map(name, samples)))
        }

    return {
        "seconds": round(seconds, 2),
        "objective": asdict(objective),
        "sent_late_s": spread(sample.late_s for sample in samples),
        "all": part(samples),
        "kinds": by(lambda sample: sample.kind),
        "protocols": by(lambda sample: sample.protocol),
    }


@dataclass(frozen=True)
class Step:
    """One arrival rate (requests a second) of a sweep and the goodput (0…1) at it."""

    rate: float
    goodput: float


def knee(steps: Sequence[Step], share: float = 0.95) -> Step | None:
    """The last step, by rate, before the first whose goodput is below `share`; None where none is good."""
    last = None
    for step in sorted(steps, key=lambda step: step.rate):
        if step.goodput < share:
            break
        last = step
    return last
