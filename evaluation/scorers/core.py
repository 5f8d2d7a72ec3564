"""What a scorer is."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from evaluation.suite.example import Answer, Score, Truth


class Scorer(ABC):
    """Scores one example at a time.

    Attributes:
        name, version: identify the score in every record; a new version retires older scores.
        metric: what the mean over examples is called.
        binary: values are 0 or 1, so that two runs are compared by McNemar's test.
        scale: the value of an answer as good as the reference.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    metric: ClassVar[str]
    binary: ClassVar[bool] = False
    scale: ClassVar[float] = 1.0

    def missing(self) -> str | None:
        """Why this scorer cannot run here, in a few words; None where it can."""
        return None

    def applies(self, truth: Truth) -> str | None:
        """Why this example has nothing for this scorer; None where it has."""
        return None

    @abstractmethod
    async def score(self, truth: Truth, answer: Answer) -> Score:
        """A value, or a failure; never raises for what a model or an endpoint did."""


@dataclass(frozen=True)
class Case:
    """One example as a corpus scorer sees it: its drawn and its true picture, its group, its values so far."""

    id: str
    group: str
    drawn: Path | None
    true: Path | None
    value: float | None


@dataclass(frozen=True)
class Estimate:
    """A number about a whole task. `units` are per-unit values where the number is their mean."""

    value: float | None
    n: int
    failed: int = 0
    stderr: float | None = None
    ci95: tuple[float, float] | None = None
    units: tuple[float, ...] = ()
    note: str = ""
    not_run: str = ""


class CorpusScorer(ABC):
    """Scores all examples of a task together."""

    name: ClassVar[str]
    version: ClassVar[int]
    metric: ClassVar[str]

    def missing(self) -> str | None:
        return None

    @abstractmethod
    def estimate(self, cases: Sequence[Case]) -> Estimate: ...


def not_installed(module: str, package: str | None = None) -> str | None:
    """A sentence where `module` cannot be imported."""
    if importlib.util.find_spec(module) is None:
        return f"the package {package or module} is not installed"
    return None
