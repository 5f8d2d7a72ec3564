"""Truths and picture codes → sequences of ids with the positions that are learnt."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    single_turns,
)
from services.checkpoint import Vocabulary
from training.phantom.recipe import Mix
from training.phantom.without import Slice, allowed

_POOL = 48
"""Batches made at once, so that sequences of like length share one."""


@dataclass(frozen=True)
class Example:
    """One sequence of T positions.

    `ids` int64 [T]; `labels` int64 [T], the id to be predicted at each position, -1 where none is learnt; `weight`
    float32 [T], what each counts for;
    `block` int64 [T], 0 for what all see, and above that the number of the continuation a position belongs to:
    continuations do not see each other; `positions` int64 [T], each one's place as if its continuation stood alone.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    weight: NDArray[np.float32]
    block: NDArray[np.int64]
    positions: NDArray[np.int64]

    def cut(self, length: int) -> Example:
        """The first `length` positions."""
        part = slice(length)
        return Example(
            self.ids[part], self.labels[part], self.weight[part], self.block[part], self.positions[part]
        )


class SequenceMaker:
    """Draws training sequences about the given truths.

    `codes` int16 [N, cells] are their pictures', `weights` float32 [N, cells] what each code counts for in a drawing.
    Questions of the slices `without` are never drawn.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        truths: Sequence[Truth],
        codes: NDArray[np.int16],
        weights: NDArray[np.float32],
        context: int,
        without: Iterable[Slice] = (),
    ) -> None:
        self.vocabulary, self.truths, self.codes, self.weights = vocabulary, truths, codes, weights
        self.context, self._without = context, frozenset(without)
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
        return self._example(ids, labels, index)

    def questions(self, turns: Sequence[Turn], index: int) -> Example:
        """Many single turns about one picture, which comes first in each and is read once.

        Each continues `<s>` picture by itself, as if the others were not there.
        """
        vocabulary = self.vocabulary
        ids = [vocabulary.bos, *vocabulary.image_span(self.codes[index].astype(np.int64))]
        shared = len(ids)
        labels, block, positions = [-1] * shared, [0] * shared, list(range(shared))
        for number, (user, assistant) in enumerate(turns, start=1):
            asked, answer = self._encode(user), self._encode(assistant)
            ids += [*asked, vocabulary.end_of_turn, *answer]
            labels += [-1] * len(asked) + [*answer, vocabulary.eos]
            length = len(asked) + 1 + len(answer)
            block += [number] * length
            positions += range(shared, shared + length)
        return self._example(ids, labels, index, block, positions)

    def _example(
        self,
        ids: list[int],
        labels: list[int],
        index: int,
        block: list[int] | None = None,
        positions: list[int] | None = None,
        *,
        drawn: bool = True,
    ) -> Example:
        """drawn: whether pictures that are learnt were described before."""
        learnt = np.array(labels, np.int64)
        weight = np.ones(len(labels), np.float32)
        places = np.flatnonzero((learnt >= 0) & (self.vocabulary.id_to_code(learnt.clip(0)) >= 0))
        if drawn:
            weight[places] = np.tile(self.weights[index], len(places) // self.weights.shape[1])
        return Example(
            np.array(ids, np.int64),
            learnt,
            weight,
            np.array(block, np.int64) if block else np.zeros(len(ids), np.int64),
            np.array(positions, np.int64) if positions else np.arange(len(ids)),
        )

    def unconditional(self, index: int) -> Example:
        """A picture without a prompt, `<s>` begin-of-image codes: what guidance subtracts."""
        span = self.vocabulary.image_span(self.codes[index].astype(np.int64))
        return self._example([self.vocabulary.bos, *span[:-1]], [-1, *span[1:]], index, drawn=False)

    def draw(self, rng: np.random.Generator, mix: Mix) -> Example:
        """One sequence of a family that the mix's shares decide; dialogues have one to nine questions."""
        index = int(rng.integers(len(self.truths)))
        truth = self.truths[index]
        limits = np.cumsum([mix.dialogue, mix.report, mix.drawing, mix.bare, mix.questions])
        family = int(np.searchsorted(limits, rng.random(), side="right"))
        if family == 0:
            turns = 1 if rng.random() < 0.15 else int(rng.integers(3, 10))
            made = self.sequence(self._allowed(lambda: dialogue(truth, rng, turns), truth), index)
        elif family == 1:
            ((asked, answer),) = self._allowed(lambda: [report_question(truth, rng)], truth)
            made = self.sequence([(f"{IMAGE}{asked}" if rng.random() < 0.3 else asked, answer)], index)
        elif family == 2:
            made = self.sequence([image_generation(truth, rng)], index)
        elif family == 3:
            made = self.unconditional(index)
        elif family == 4:
            asked_once = self._allowed(lambda: single_turns(truth, rng, mix.per_picture), truth)
            made = self.questions(asked_once, index)
        else:
            made = self.sequence([multimodal_generation(truth, rng)], index)
        return made.cut(self.context)

    def _allowed(self, draw: Callable[[], Sequence[Turn]], truth: Truth) -> Sequence[Turn]:
        """Turns drawn until one is left outside of the slices to leave out."""
        turns = draw()
        if not self._without:
            return turns
        while not (kept := allowed(turns, truth.modality, self._without)):
            turns = draw()
        return kept

    def batches(self, rng: np.random.Generator, tokens: int, mix: Mix) -> Iterator[Example]:
        """Endless padded batches of about `tokens` positions: examples whose arrays are [B, T]."""
        while True:
            pool: list[Example] = []
            size = 0
            while size < tokens * _POOL:
                pool.append(self.draw(rng, mix))
                size += len(pool[-1].ids)
            pool.sort(key=lambda item: len(item.ids))
            groups: list[list[Example]] = [[]]
            for item in pool:
                if groups[-1] and len(item.ids) * (len(groups[-1]) + 1) > tokens:
                    groups.append([])
                groups[-1].append(item)
            for place in rng.permutation(len(groups)):
                yield self._pad(groups[int(place)])

    def _pad(self, group: Sequence[Example]) -> Example:
        shape = (len(group), max(len(item.ids) for item in group))
        ids = np.full(shape, self.vocabulary.pad, np.int64)
        labels = np.full(shape, -1, np.int64)
        weight = np.zeros(shape, np.float32)
        block = np.zeros(shape, np.int64)
        positions = np.zeros(shape, np.int64)
        for row, item in enumerate(group):
            part = slice(len(item.ids))
            ids[row, part], labels[row, part], weight[row, part] = item.ids, item.labels, item.weight
            block[row, part], positions[row, part] = item.block, item.positions
        return Example(ids, labels, weight, block, positions)


def finding_weights(
    truths: Sequence[Truth], masks: NDArray[np.bool_], grid: tuple[int, int], most: float
) -> NDArray[np.float32]:
    """What each cell of a drawing counts for, 1 to `most`: more where findings of the kinds asked for tend to lie.

    It depends on the description and the place alone, never on the picture: weights on the cells that a finding does
    cover would teach that findings are likelier than they are.

    Args:
        masks: bool [N, S, S], true on pixels of findings.

    Returns:
        float32 [N, rows · columns].
    """
    rows, columns = grid
    count, height, width = masks.shape
    covered = masks.reshape(count, rows, height // rows, columns, width // columns).mean(axis=(2, 4))
    covered = covered.reshape(count, -1).astype(np.float32)
    kinds = [(truth.modality, finding.kind) for truth in truths for finding in truth.findings]
    usual: dict[tuple[str, str], NDArray[np.float32]] = {}
    for kind in sorted(set(kinds)):
        shown = [i for i, truth in enumerate(truths) if truth.modality == kind[0] and truth.finding(kind[1])]
        mean = covered[shown].mean(axis=0)
        usual[kind] = mean / max(float(mean.max()), 1e-6)
    weights = np.ones_like(covered)
    for index, truth in enumerate(truths):
        for finding in truth.findings:
            place = 1 + (most - 1) * usual[truth.modality, finding.kind]
            weights[index] = np.maximum(weights[index], place)
    return weights


def digest(truths: Sequence[Truth], pictures_digest: str) -> str:
    """SHA-256 (hex) over the pictures and what is true of each."""
    whole = hashlib.sha256(pictures_digest.encode())
    for truth in truths:
        whole.update(repr(truth).encode())
    return whole.hexdigest()
