"""Errors and times of the requests of a stretch of time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

# As the alert MedMaxErrors counts them, and refused for lack of room: a slower version shows so.
FAILURES = frozenset(
    {
        "internal_error",
        "unavailable",
        "deadline_exceeded",
        "checkpoint_error",
        "configuration_error",
        "overloaded",
    }
)


@dataclass(frozen=True)
class Measured:
    """
    Attributes:
        codes: requests by how they ended, `ok` or an error's code.
        buckets: answers whose first token came within so many seconds, cumulative, by that bound (`inf` = all).
    """

    codes: Mapping[str, float] = field(default_factory=dict)
    buckets: Mapping[float, float] = field(default_factory=dict)

    @property
    def requests(self) -> float:
        return sum(self.codes.values())

    @property
    def errors(self) -> float:
        """Requests that failed for no fault of their callers."""
        return sum(count for code, count in self.codes.items() if code in FAILURES)

    @property
    def error_ratio(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    @property
    def answers(self) -> float:
        return self.buckets.get(math.inf, 0.0)

    def first_token(self, share: float) -> float | None:
        """Seconds within which `share` of the answers began, interpolated in its bucket as Prometheus does; None
        without answers. In the last bucket it is that bucket's lower bound."""
        if not self.answers:
            return None
        wanted, below, reached = share * self.answers, 0.0, 0.0
        for bound in sorted(self.buckets):
            count = self.buckets[bound]
            if count >= wanted:
                if math.isinf(bound):
                    return below
                inside = count - reached
                return below + (bound - below) * ((wanted - reached) / inside if inside else 1.0)
            below, reached = bound, count
        return below

    def to_json(self) -> dict[str, Any]:
        buckets = [[None if math.isinf(bound) else bound, count] for bound, count in self.buckets.items()]
        return {"codes": dict(self.codes), "buckets": buckets}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        buckets = {math.inf if bound is None else float(bound): count for bound, count in value["buckets"]}
        return cls(value["codes"], buckets)

    def __str__(self) -> str:
        slow = self.first_token(0.95)
        text = f"{self.requests:,.0f} requests, {self.error_ratio:.1%} failed"
        return text if slow is None else f"{text}, first token within {slow:.3g} s (95th percentile)"

    def facts(self) -> dict[str, float | None]:
        """For people and `--json`."""
        slow = self.first_token(0.95)
        return {
            "requests": round(self.requests),
            "errors": round(self.errors),
            "error_ratio": round(self.error_ratio, 5),
            "first_token_p95_s": None if slow is None else round(slow, 4),
        }
