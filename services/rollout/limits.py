"""What a roll-out must keep to, and whether what was measured keeps to it."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.errors import InvalidInput
from services.rollout.measured import Measured

Z = 1.96  # of a 95 % interval
PERCENTILE = 0.95


class Limits(BaseModel):
    """Budgets and objectives; kept with the roll-out, so that whoever goes on with it uses the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ready_s: float = Field(1800, gt=0, le=24 * 3600, description="longest time until the version is ready")
    settle_s: float = Field(15, ge=0, le=3600, description="for which it must stay so before it counts")
    baseline_s: float = Field(60, ge=0, le=24 * 3600, description="measured before the change; 0 = not")
    window_s: float = Field(600, ge=0, le=24 * 3600, description="watched after it is ready")
    min_requests: int = Field(30, ge=1, le=10**9, description="fewer in the window decide nothing")
    max_error_ratio: float = Field(0.01, ge=0, le=1, description="of requests, not the callers' fault")
    max_error_increase: float = Field(0.01, ge=0, le=1, description="of that ratio over the baseline")
    max_first_token_s: float = Field(5.0, gt=0, le=3600, description="95th percentile")
    max_first_token_factor: float = Field(2.0, ge=1, le=1000, description="of that over the baseline")
    undecided: Literal["promote", "rollback"] = Field(
        "promote", description="after a window with fewer requests"
    )

    @classmethod
    def of(cls, **values: object) -> Self:
        """Raises: InvalidInput: a value is out of its range; names it."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise InvalidInput(first["msg"], field=".".join(map(str, first["loc"]))) from None

    def breach(self, found: Measured, baseline: Measured | None) -> str:
        """Which objective `found` breaks and how; empty where none, or where it has too few requests to tell.

        A ratio breaks its limit when its whole 95 % interval (Wilson) lies above it, so that one failed request of
        thirty is no reason to go back.
        """
        if found.requests < self.min_requests:
            return ""
        least = lower_bound(found.errors, found.requests)
        share = f"{found.errors:,.0f} of {found.requests:,.0f} requests failed ({found.error_ratio:.1%})"
        if least > self.max_error_ratio:
            return f"{share}; the limit is {self.max_error_ratio:.1%}"
        enough = baseline is not None and baseline.requests >= self.min_requests
        if enough and baseline is not None and least > baseline.error_ratio + self.max_error_increase:
            before = f"{baseline.error_ratio:.1%} before, and {self.max_error_increase:.1%} more is the limit"
            return f"{share}; {before}"
        slow = found.first_token(PERCENTILE)
        if slow is None or found.answers < self.min_requests:
            return ""
        text = f"one answer in twenty begins after more than {slow:.2f} s"
        if slow > self.max_first_token_s:
            return f"{text}; the limit is {self.max_first_token_s:g} s"
        before_s = baseline.first_token(PERCENTILE) if enough and baseline is not None else None
        if before_s is not None and slow > before_s * self.max_first_token_factor:
            return f"{text}; {before_s:.2f} s before, and {self.max_first_token_factor:g} times that is the limit"
        return ""

    def checks(self) -> list[str]:
        """What will be checked, in sentences."""
        return [
            f"ready within {self.ready_s:,.0f} s, and for {self.settle_s:g} s without a break",
            f"then watched for {self.window_s:,.0f} s, judged from {self.min_requests:,} requests on",
            f"failed requests: at most {self.max_error_ratio:.1%}, and {self.max_error_increase:.1%} more than before",
            f"first token, 95th percentile: at most {self.max_first_token_s:g} s, and "
            f"{self.max_first_token_factor:g} times as long as before",
            f"with fewer requests: {self.undecided}",
        ]


def lower_bound(count: float, total: float) -> float:
    """Lower end of Wilson's 95 % interval of a share."""
    if total <= 0:
        return 0.0
    share = min(1.0, count / total)
    spread = Z * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    return max(0.0, (share + Z**2 / (2 * total) - spread) / (1 + Z**2 / total))
