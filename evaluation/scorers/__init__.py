"""Scorers: what turns an answer and its truth into a number. Each says its name and version.

A scorer that cannot run here says why (`missing`), and one that has nothing to say about an example says so too
(`applies`): both appear in the results as *not run*, never as zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from evaluation.scorers.clip import ClipImageImage, ClipImageText
from evaluation.scorers.core import CorpusScorer, Scorer
from evaluation.scorers.distribution import Frechet, Kernel
from evaluation.scorers.judge import Endpoint, JudgeCorrect, JudgeRelative
from evaluation.scorers.phantom import PhantomAnswer, PhantomPicture
from evaluation.scorers.pixels import Features
from evaluation.scorers.reports import CheXbert, RadGraph
from evaluation.scorers.rules import ClosedRule, Exact, McqRule, PairRight, VqaMatch
from evaluation.scorers.text import Bleu, RougeL


@dataclass(frozen=True)
class Tools:
    """What scorers need from outside; each part may be missing.

    Attributes:
        judge: an OpenAI-compatible endpoint.
        clip: folder of an open_clip or Hugging Face CLIP model.
        features: TorchScript file, or `module:function`, that turns pictures into feature vectors.
    """

    judge: Endpoint | None = None
    clip: Path | None = None
    features: str | None = None


@dataclass
class Scorers:
    """Every scorer by name: `each` scores examples, `corpus` a whole task."""

    tools: Tools = field(default_factory=Tools)
    each: dict[str, Scorer] = field(init=False)
    corpus: dict[str, CorpusScorer] = field(init=False)

    def __post_init__(self) -> None:
        features = Features(self.tools.features)
        each: list[Scorer] = [
            ClosedRule(), McqRule(), Exact(), VqaMatch(), RougeL(), Bleu(), RadGraph(), CheXbert(),
            JudgeCorrect(self.tools.judge), JudgeRelative(self.tools.judge),
            *ClipImageText.both(self.tools.clip), ClipImageImage(self.tools.clip),
            PhantomAnswer(), PhantomPicture(),
        ]  # fmt: skip
        corpus: list[CorpusScorer] = [Frechet(features), Kernel(features), PairRight()]
        self.each = {scorer.name: scorer for scorer in each}
        self.corpus = {scorer.name: scorer for scorer in corpus}

    async def close(self) -> None:
        if self.tools.judge:
            await self.tools.judge.close()


__all__ = ["CorpusScorer", "Endpoint", "Scorer", "Scorers", "Tools"]
