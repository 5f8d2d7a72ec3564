"""Answers about phantoms against their exact truth; drawn pictures are read by the analyser of pixels."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import numpy as np

from evaluation.scorers.core import Scorer
from evaluation.scorers.pixels import picture
from evaluation.scorers.rules import normalise
from evaluation.suite.example import Answer, Score, Truth

NO_PHANTOM = "the rows carry no phantom's truth"
_SENTENCE = re.compile(r"This [^.\n]* shows [^.\n]*")


def truth_of(value: Any) -> Any:
    """The `evaluation.phantoms.Truth` that a row's `phantom` field holds."""
    from evaluation.phantoms import Finding
    from evaluation.phantoms import Truth as Shown

    findings = tuple(
        Finding(f["kind"], side=f.get("side"), size=f.get("size"), count=f.get("count"))
        for f in value["findings"]
    )
    return Shown(int(value["seed"]), str(value["modality"]), findings)


class PhantomAnswer(Scorer):
    """Text about a phantom: share of a caption's slots (modality, kinds, sides, sizes, counts) that are right, or, where the
    truth is a few words, 1 for the same words."""

    name, version, metric = "phantom_answer", 1, "right slots"

    def applies(self, truth: Truth) -> str | None:
        return None if truth.phantom else NO_PHANTOM

    async def score(self, truth: Truth, answer: Answer) -> Score:
        from evaluation.phantoms import score_caption

        if truth.reads == "exact":
            return Score(float(normalise(answer.text) == normalise(truth.text)))
        said = _SENTENCE.findall(answer.text)
        right, total = score_caption(said[-1] if said else answer.text, truth_of(truth.phantom))
        return Score(right / total)


class PhantomPicture(Scorer):
    """Share of the described findings that the analyser sees in the first drawn picture; no picture: 0."""

    name, version, metric = "phantom_picture", 1, "right findings"

    def applies(self, truth: Truth) -> str | None:
        return None if truth.phantom else NO_PHANTOM

    async def score(self, truth: Truth, answer: Answer) -> Score:
        if not answer.pictures:
            return Score(0.0, note="no picture in the answer")
        return await asyncio.to_thread(self._read, truth, answer.pictures[0])

    def _read(self, truth: Truth, drawn: bytes) -> Score:
        from evaluation.phantoms import analyse, findings_present

        wanted = truth_of(truth.phantom)
        try:
            found = analyse(np.asarray(picture(drawn)), wanted.modality)
        except ValueError as error:
            return Score(None, "no_picture", str(error))
        right, total = findings_present(wanted.findings, found)
        return Score(right / total, note=str([finding.kind for finding in found]))
