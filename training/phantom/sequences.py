"""Truths and picture codes → sequences of ids with the positions that are learnt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.phantoms import Truth
from evaluation.phantoms.rows import (
    IMAGE,
    Turn,
    dialogue,
    image_generation,
    multimodal_generation,
    report_question,
)
from services.checkpoint import Vocabulary

_POOL = 48
"""Batches made at once, so that sequences of like length share one."""


@dataclass(frozen=True)
class Example:
    """int64 [T] ids, and int64 [T] labels: the id to be predicted at each position, -1 where none is learnt."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]


class SequenceMaker:
    """Draws training sequences about the given truths; `codes` int16 [N, cells] are their pictures'."""

    def __init__(
        self, vocabulary: Vocabulary, truths: Sequence[Truth], codes: NDArray[np.int16], context: int
    ) -> None:
        self.vocabulary, self.truths, self.codes, self.context = vocabulary, truths, codes, context
        self._cache: dict[str, list[int]] = {}

    def _encode(self, text: str) -> list[int]:
        if text not in self._cache:
            if len(self._cache) > 200_000:
                self._cache.clear()
            self._cache[text] = self.vocabulary.encode(text)
        return self._cache[text]

    def part(self, text: str, span: list[int]) -> list[int]:
        """One side of a turn; `<image>` becomes the picture's span."""
        ids: list[int] = []
        for index, piece in enumerate(text.split(IMAGE)):
            if index:
                ids += span
            if piece:
                ids += self._encode(piece)
        return ids

    def sequence(self, turns: Sequence[Turn], index: int) -> Example:
        """`<s>` user end-of-turn assistant [end-of-turn user …] `</s>`.

        After every answer `</s>` is what is learnt, also where the input goes on with another turn: an answer
        ends in the same way wherever it stands.
        """
        vocabulary = self.vocabulary
        span = vocabulary.image_span(self.codes[index].astype(np.int64))
        ids, labels = [vocabulary.bos], [-1]
        for number, (user, assistant) in enumerate(turns):
            asked, answer = self.part(user, span), self.part(assistant, span)
            if number:
                ids.append(vocabulary.end_of_turn)
                labels.append(-1)
            ids += [*asked, vocabulary.end_of_turn]
            labels += [-1] * (len(asked) + 1)
            labels[-1] = answer[0]
            ids += answer
            labels += [*answer[1:], vocabulary.eos]
        return Example(np.array(ids, np.int64), np.array(labels, np.int64))

    def unconditional(self, index: int) -> Example:
        """A picture without a prompt, `<s>` begin-of-image codes: what guidance subtracts."""
        span = self.vocabulary.image_span(self.codes[index].astype(np.int64))
        ids = np.array([self.vocabulary.bos, *span[:-1]], np.int64)
        labels = np.array([-1, *span[1:]], np.int64)
        return Example(ids, labels)

    def draw(self, rng: np.random.Generator) -> Example:
        """One sequence of any family; questions about one picture come several to a sequence."""
        index = int(rng.integers(len(self.truths)))
        truth = self.truths[index]
        family = rng.random()
        if family < 0.56:
            turns = 1 if rng.random() < 0.15 else int(rng.integers(3, 10))
            made = self.sequence(dialogue(truth, rng, turns), index)
        elif family < 0.63:
            asked, answer = report_question(truth, rng)
            made = self.sequence([(f"{IMAGE}{asked}" if rng.random() < 0.3 else asked, answer)], index)
        elif family < 0.89:
            made = self.sequence([image_generation(truth, rng)], index)
        elif family < 0.92:
            made = self.unconditional(index)
        else:
            made = self.sequence([multimodal_generation(truth, rng)], index)
        return Example(made.ids[: self.context], made.labels[: self.context])

    def batches(
        self, rng: np.random.Generator, tokens: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Endless padded batches of about `tokens` positions: ids and labels, int64 [B, T]."""
        while True:
            pool: list[Example] = []
            size = 0
            while size < tokens * _POOL:
                pool.append(self.draw(rng))
                size += len(pool[-1].ids)
            pool.sort(key=lambda item: len(item.ids))
            groups: list[list[Example]] = [[]]
            for item in pool:
                if groups[-1] and len(item.ids) * (len(groups[-1]) + 1) > tokens:
                    groups.append([])
                groups[-1].append(item)
            for place in rng.permutation(len(groups) - 1 or 1):
                yield self._pad(groups[int(place)])

    def _pad(self, group: Sequence[Example]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        shape = (len(group), max(len(item.ids) for item in group))
        ids = np.full(shape, self.vocabulary.pad, np.int64)
        labels = np.full(shape, -1, np.int64)
        for row, item in enumerate(group):
            ids[row, : len(item.ids)], labels[row, : len(item.labels)] = item.ids, item.labels
        return ids, labels


def digest(truths: Sequence[Truth], pictures_digest: str) -> str:
    """SHA-256 (hex) over the pictures and what is true of each."""
    whole = hashlib.sha256(pictures_digest.encode())
    for truth in truths:
        whole.update(repr(truth).encode())
    return whole.hexdigest()
