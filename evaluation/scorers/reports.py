"""Clinical content of radiology reports, where the packages and their weights are on this machine.

RadGraph (package radgraph) and CheXbert (package f1chexbert) fetch weights on first use; on a machine without a network
put them into the hub's cache first. What cannot be loaded is *not run*.
"""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from typing import Any, ClassVar

from evaluation.scorers.core import Scorer, not_installed
from evaluation.suite.example import Answer, Score, Truth


class _ReportScorer(Scorer):
    package: ClassVar[str]

    def __init__(self) -> None:
        self._model: Any = None
        self._reason: str | None = None
        self._lock = threading.Lock()

    @abstractmethod
    def build(self) -> Any: ...

    @abstractmethod
    def value(self, model: Any, hypothesis: str, reference: str) -> float: ...

    def missing(self) -> str | None:
        if (reason := not_installed(self.package)) is not None:
            return reason
        if self._model is None and self._reason is None:
            try:
                self._model = self.build()
            except Exception as error:  # whatever a package without its weights does
                self._reason = f"{self.package} cannot be loaded: {type(error).__name__}: {str(error)[:200]}"
        return self._reason

    async def score(self, truth: Truth, answer: Answer) -> Score:
        if not answer.text.strip():
            return Score(0.0, note="no text in the answer")
        try:
            return Score(await asyncio.to_thread(self._locked, answer.text, truth.text))
        except Exception as error:  # one odd report does not end a run
            return Score(None, f"{self.name}_failed", f"{type(error).__name__}: {error}")

    def _locked(self, hypothesis: str, reference: str) -> float:
        with self._lock:
            return self.value(self._model, hypothesis, reference)


class RadGraph(_ReportScorer):
    """F1 of entities and relations (partial reward)."""

    name, version, metric, package = "radgraph", 1, "RadGraph F1", "radgraph"

    def build(self) -> Any:
        from radgraph import F1RadGraph

        return F1RadGraph(reward_level="partial")

    def value(self, model: Any, hypothesis: str, reference: str) -> float:
        return float(model(hyps=[hypothesis], refs=[reference])[0])


class CheXbert(_ReportScorer):
    """Share of reports whose labels of the five main findings all agree."""

    name, version, metric, package = "chexbert", 1, "CheXbert accuracy", "f1chexbert"

    def build(self) -> Any:
        from f1chexbert import F1CheXbert

        return F1CheXbert()

    def value(self, model: Any, hypothesis: str, reference: str) -> float:
        return float(model(hyps=[hypothesis], refs=[reference])[0])
