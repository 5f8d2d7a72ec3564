"""Overlap of words with the reference, where the packages are installed (extra `eval`)."""

from __future__ import annotations

from functools import cache
from typing import Any

from evaluation.scorers.core import Scorer, not_installed
from evaluation.suite.example import Answer, Score, Truth


class RougeL(Scorer):
    """F-measure of the longest common subsequence of stemmed words (package rouge-score), 0 to 1."""

    name, version, metric = "rouge_l", 1, "ROUGE-L F"

    def missing(self) -> str | None:
        return not_installed("rouge_score", "rouge-score")

    async def score(self, truth: Truth, answer: Answer) -> Score:
        return Score(float(_rouge().score(truth.text, answer.text)["rougeL"].fmeasure))


class Bleu(Scorer):
    """Sentence BLEU-4 with effective order (package sacrebleu), averaged over examples, 0 to 100."""

    name, version, metric, scale = "bleu", 1, "BLEU (sentence)", 100.0

    def missing(self) -> str | None:
        return not_installed("sacrebleu")

    async def score(self, truth: Truth, answer: Answer) -> Score:
        return Score(float(_bleu().sentence_score(answer.text, [truth.text]).score))


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


@cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)
