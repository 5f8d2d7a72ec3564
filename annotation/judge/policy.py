"""How many experts an item needs, and who decides conflicts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from annotation.core import Item, Kind, Severity

SEVERITIES = tuple(Severity)  # from harmless to critical


class JudgePolicy(BaseModel):
    """Read it with `annotation.checked.checked`, which names what is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reviewers: int = Field(2, ge=1, le=20, description="experts an item, where nothing else applies")
    reviewers_by_kind: dict[Kind, int] = Field(
        default_factory=dict, description="instead of `reviewers`, 1 to 20"
    )
    careful_reviewers: int = Field(3, ge=1, le=20, description="at least, for high risk or severity")
    high_risk: float = Field(0.7, ge=0, le=1, description="risk from which an item is judged with care")
    high_severity: Severity = Field(
        Severity.MAJOR, description="severity, in any counted verdict, from which an item is judged with care"
    )
    dissent: Severity = Field(
        Severity.CRITICAL,
        description="one counted verdict this severe, against a majority less severe, is a conflict",
    )
    adjudicators: frozenset[str] = Field(
        frozenset(), description="Label Studio's user ids; their verdict decides"
    )

    @model_validator(mode="after")
    def _limits(self) -> JudgePolicy:
        for kind, count in self.reviewers_by_kind.items():
            if not 1 <= count <= 20:
                raise ValueError(f"reviewers_by_kind.{kind} must be 1 to 20")
        if Severity.NONE in (self.high_severity, self.dissent):
            raise ValueError("high_severity and dissent must be minor, major or critical")
        return self

    def needed(self, item: Item, severity: Severity) -> int:
        """Experts for `item`, `severity` being the worst that one of them saw."""
        usual = self.reviewers_by_kind.get(item.kind, self.reviewers)
        careful = item.risk >= self.high_risk or rank(severity) >= rank(self.high_severity)
        return max(usual, self.careful_reviewers) if careful else usual


def rank(severity: Severity) -> int:
    return SEVERITIES.index(severity)
