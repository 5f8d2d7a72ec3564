"""What is asked: requests about phantoms, drawn from a seed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image

from evaluation.phantoms import Phantom, draw, held_out
from evaluation.phantoms.rows import any_question, image_generation, multimodal_generation, report_question

KINDS = ("chat", "vqa", "drawing", "interleaved")
MIXES: Mapping[str, Mapping[str, float]] = {
    **{kind: {kind: 1.0} for kind in KINDS},
    # Mostly questions on films; pictures are drawn for teaching and for answers that show what they mean.
    "mixed": {"vqa": 0.55, "chat": 0.30, "drawing": 0.09, "interleaved": 0.06},
}
DAY = "day"
ASKED_TWICE = 0.5
"""Share of the questions on films that take a case that somebody asked about before, with its picture or without."""


@dataclass(frozen=True)
class Turn:
    """What one side said; `picture` is a PNG file, empty = none."""

    role: str
    text: str
    picture: bytes = b""


@dataclass(frozen=True)
class Ask:
    """One request; `outputs` are OpenAI's modalities. `new_film`: of a question on a film that was not asked about before."""

    kind: str
    turns: tuple[Turn, ...]
    outputs: tuple[str, ...] = ("text",)
    seed: int = 0
    new_film: bool = False


@dataclass
class Asker:
    """Requests of a mix, the same for the same seed."""

    mix: Mapping[str, float]
    seed: int
    _rng: np.random.Generator = field(init=False)
    _films: list[int] = field(default_factory=list)  # of all that was asked about
    _shown: set[int] = field(default_factory=set)  # sent as pictures

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng([self.seed, 7])

    def next(self) -> Ask:
        """The next request."""
        kinds = tuple(self.mix)
        shares = np.array([self.mix[kind] for kind in kinds])
        kind = kinds[int(self._rng.choice(len(kinds), p=shares / shares.sum()))]
        phantom, number = self._film(kind == "vqa"), int(self._rng.integers(1 << 31))
        if kind == "vqa":
            question, new = any_question(phantom, self._rng).text, phantom.seed not in self._shown
            self._shown.add(phantom.seed)
            return Ask(kind, (Turn("user", question, png(phantom.seed)),), seed=number, new_film=new)
        if kind == "chat":
            first, answer = report_question(phantom, self._rng)
            then, _ = report_question(phantom, self._rng)
            turns = (Turn("user", first), Turn("assistant", answer), Turn("user", then))
            return Ask(kind, turns, seed=number)
        if kind == "drawing":
            return Ask(kind, (Turn("user", image_generation(phantom, self._rng)[0]),), ("image",), number)
        text = multimodal_generation(phantom, self._rng)[0]
        return Ask(kind, (Turn("user", text),), ("text", "image"), number)

    def _film(self, may_repeat: bool) -> Phantom:
        if may_repeat and self._films and self._rng.random() < ASKED_TWICE:
            return film(self._films[int(self._rng.integers(len(self._films)))])
        seeds = held_out(77, 10_000)
        self._films.append(seeds[int(self._rng.integers(len(seeds)))])
        return film(self._films[-1])


@lru_cache(maxsize=256)
def film(seed: int) -> Phantom:
    return draw(seed)


@lru_cache(maxsize=256)
def png(seed: int) -> bytes:
    """The phantom's picture as a file."""
    file = io.BytesIO()
    Image.fromarray(film(seed).picture).save(file, "PNG")
    return file.getvalue()
