"""Settings of assignment."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field


class AssignPolicy(BaseModel):
    """How long an expert may hold an item, and how often a gold one is mixed in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reservation_minutes: float = Field(120, gt=0, le=7 * 24 * 60, description="then the next expert gets it")
    gold_share: float = Field(
        0.05, ge=0, le=0.5, description="chance that an expert gets a gold item instead"
    )

    @property
    def lease(self) -> timedelta:
        return timedelta(minutes=self.reservation_minutes)
