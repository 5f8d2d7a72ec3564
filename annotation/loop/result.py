"""What a pass of a step comes to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Result:
    """
    Attributes:
        done: items that were brought on.
        left: items that wait for this step and were not reached in this pass.
        failed: items that could not be brought on, by the error's code or a reason.
        said: facts for people, by name; numbers, codes and ids alone.
    """

    done: int = 0
    left: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> str:
        """The most frequent failure; empty where there was none."""
        return min(self.failed, key=lambda name: (-self.failed[name], name)) if self.failed else ""

    def to_json(self) -> dict[str, Any]:
        return {"done": self.done, "left": self.left, "failed": dict(self.failed), **self.said}
