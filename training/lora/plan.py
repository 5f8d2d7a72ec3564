"""Every step of a run, known before the first: which packs it learns from and which part is whose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.lora.recipe import Recipe
from training.rows.pack import Packs, pack
from training.rows.source import Source
from training.rows.survey import Survey


@dataclass(frozen=True)
class Plan:
    """`epochs` are the packs of each pass over the data, `batch` how many make a step; `survey` is of their rows."""

    epochs: tuple[Packs, ...]
    batch: int
    survey: Survey

    @classmethod
    def of(cls, source: Source, survey: Survey, recipe: Recipe, length: int) -> Plan:
        epochs = []
        for epoch in range(recipe.epochs):
            rng = np.random.default_rng([recipe.seed, 21, epoch])
            order = source.order(rng)
            epochs.append(pack(order[survey.learnt[order]], survey.length, length, rng))
        return cls(tuple(epochs), recipe.batch, survey)

    @property
    def packs(self) -> int:
        return sum(map(len, self.epochs))

    @property
    def steps(self) -> int:
        return -(-self.packs // self.batch)

    def rows(self, number: int) -> list[int]:
        """The rows of pack `number`, counted over all epochs."""
        for packs in self.epochs:
            if number < len(packs):
                return packs[number]
            number -= len(packs)
        raise IndexError(number)

    def step(self, step: int) -> range:
        """Numbers of the packs of a step."""
        return range(step * self.batch, min(self.packs, (step + 1) * self.batch))

    def weight(self, step: int, recipe: Recipe) -> float:
        """What the sum of a step's losses is divided by: pairs, or learnt ids with codes by their weight."""
        rows = [row for number in self.step(step) for row in self.rows(number)]
        if recipe.pairs:
            return float(len(rows))
        return float(self.survey.text[rows].sum()) + recipe.image_weight * float(
            self.survey.codes[rows].sum()
        )

    def tokens(self, step: int) -> int:
        """Ids read in a step."""
        return sum(int(self.survey.length[self.rows(number)].sum()) for number in self.step(step))


def held_packs(source: Source, survey: Survey, recipe: Recipe, length: int, most: int, held: bool) -> Packs:
    """Packs for validation: of the rows held out (`held`), or of all in another file; at most `most` rows."""
    order = source.order(np.random.default_rng([recipe.seed, 22]))
    usable = survey.length > 0
    chosen = order[(usable & survey.held if held else usable)[order]][:most]
    return pack(chosen, survey.length, length, np.random.default_rng([recipe.seed, 23]))
