"""Settings of routing: how much experts' time there is, and for what."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from annotation.core import Kind


class RiskRule(StrEnum):
    """What makes an answer risky enough."""

    THRESHOLD = "threshold"  # its calibrated risk reaches `risk_threshold`
    MISS_RATE = "miss_rate"  # else more than `miss_rate` of unacceptable answers would pass (split conformal)
    TOP = "top"  # it is among the `risk_top` riskiest of the day


class Parts(NamedTuple):
    """Of one budget. `rest` is for flags and risk; of it flags may use `flags`."""

    random: int
    gold: int
    rest: int
    flags: int


Budget = Annotated[int, Field(ge=0, le=100_000)]


class RoutingPolicy(BaseModel):
    """Budgets count items a UTC day. Read it with `annotation.checked.checked`, which names what is wrong.

    Every budget has three parts that do not borrow from each other: the random share's, gold's, and the rest for flags
    and risk. So neither a wave of flags nor a cautious model can push out the sample by which both are measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    per_day: Budget = 200
    per_kind: dict[Kind, Budget] = Field(
        default_factory=dict, description="a kind without one has `per_day` alone"
    )
    per_speciality: dict[str, Budget] = Field(default_factory=dict, description="likewise")
    random_share: float = Field(0.02, ge=0, le=1, description="of all interactions, whatever their risk")
    random_reserve: float = Field(
        0.25, ge=0, le=1, description="part of every budget that is the random share's alone"
    )
    gold_share: float = Field(0.05, ge=0, le=0.5, description="of what is sent, where there are gold items")
    flag_limit: float = Field(
        0.5, ge=0, le=1, description="part of the budgets for flags and risk that flags may use"
    )
    risk_rule: RiskRule = RiskRule.THRESHOLD
    risk_threshold: float = Field(0.3, ge=0, le=1)
    miss_rate: float = Field(0.1, gt=0, lt=1)
    risk_top: int = Field(50, ge=0, le=100_000)
    max_age_days: float = Field(7, gt=0, le=3650, description="older interactions are not sent")

    @model_validator(mode="after")
    def _parts(self) -> RoutingPolicy:
        if self.random_reserve + self.gold_share > 1:
            raise ValueError("random_reserve and gold_share must not exceed 1 together")
        if self.random_share and not self.random_reserve:
            raise ValueError("random_reserve must be above 0 where random_share is")
        if any(not 1 <= len(name) <= 64 for name in self.per_speciality):
            raise ValueError("names in per_speciality must have 1 to 64 characters")
        return self

    def parts(self, budget: int) -> Parts:
        """Whole items; the random share's part is at least one item where there is a budget and a share."""
        random = 0
        if budget and self.random_share:
            random = max(1, round(budget * self.random_reserve))
        gold = min(round(budget * self.gold_share), budget - random)
        rest = budget - random - gold
        return Parts(random, gold, rest, min(rest, round(rest * self.flag_limit)))
