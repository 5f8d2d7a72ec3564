"""What evaluation sets hold never becomes training data.

A judgement is dropped where one of its pictures is one of theirs, by pixels or by looks (`evaluation_picture`; with a
question or text of theirs about it, `evaluation_question`), and where it has no picture and shares text with one of
their rows that has none either (`evaluation_text`). Shared text is a run of n words, or the whole of a shorter text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation.dataset.prints import PrintIndex, ngrams, picture_print, pixel_digest
from evaluation.phantoms import draw, held_out
from evaluation.suite.data import MAX_PICTURE_BYTES, BadRow, EvalData
from services.errors import InvalidInput, MedMaxError
from services.tokenizer.limits import Limits
from services.tokenizer.pictures import read_picture

MAX_PHANTOMS = 100_000
_LIMITS = Limits(MAX_PICTURE_BYTES, 200_000_000)

Progress = Callable[[int, int | None], None]
"""Told how many are done, of how many where that is known."""


@dataclass(frozen=True)
class Found:
    """`reason`, and `because`: the place in the evaluation set."""

    reason: str
    because: str


@dataclass
class EvaluationSets:
    """What may not be trained on. Some 2 kB a picture.

    Attributes:
        n: words in a row that count as shared text.
        sources: of each set its name, what it holds and what of it could not be read, for the manifest.
    """

    n: int = 13
    sources: list[dict[str, Any]] = field(default_factory=list)
    _pictures: dict[str, int] = field(default_factory=dict)  # digest of pixels → number
    _prints: list[bytes] = field(default_factory=list)
    _shown: dict[int, list[tuple[NDArray[np.uint64], str]]] = field(default_factory=lambda: defaultdict(list))
    _bare: dict[int, str] = field(default_factory=dict)  # n-gram of a row without picture → place
    _index: PrintIndex | None = None

    def add_data(self, data: Path, progress: Progress = lambda done, of: None) -> None:
        """A folder or file in medmax_eval_data's form. Raises: InvalidInput where there is none."""
        found = EvalData.find(data)
        counts, unreadable = {"rows": 0, "pictures": 0}, {"rows": 0, "pictures": 0}
        numbers: dict[Path, int | None] = {}
        for done, row in enumerate(found.rows(), 1):
            progress(done, None)
            if isinstance(row, BadRow):
                unreadable["rows"] += 1
                continue
            counts["rows"] += 1
            place = f"{data.name}/{row.place}"
            grams = [ngrams(text, self.n) for text in (row.prompt, row.answer)]
            if row.picture is None:
                # An answer alone ("yes") says nothing of the row.
                self._bare |= dict.fromkeys(grams[0].tolist(), place)
                continue
            if row.picture not in numbers:
                numbers[row.picture] = self._read(row.picture, place)
                (unreadable if numbers[row.picture] is None else counts)["pictures"] += 1
            if (number := numbers[row.picture]) is not None:
                self._shown[number].append((np.union1d(*grams), place))
        source = {"name": data.name, "digest": found.digest(), **counts}
        self.sources.append({**source, "unreadable": unreadable})

    def add_phantoms(self, seed: int, count: int, progress: Progress = lambda done, of: None) -> None:
        """The held-out phantoms that `medmax eval phantom --seed --count` asks about. Raises: InvalidInput."""
        if not 0 <= seed < 10**6:
            raise InvalidInput("must be from 0 to 999,999", field="seed")
        if not 1 <= count <= MAX_PHANTOMS:
            raise InvalidInput(f"must be from 1 to {MAX_PHANTOMS:,}", field="count")
        for done, number in enumerate(held_out(seed, count), 1):
            self._number(draw(number).picture, f"phantom {number}")
            progress(done, count)
        self.sources.append({"name": f"held-out phantoms {seed}", "pictures": count, "rows": 0})

    def _read(self, file: Path, place: str) -> int | None:
        try:
            return self._number(read_picture(file.read_bytes(), _LIMITS).pixels, place)
        except (MedMaxError, OSError):
            return None

    def _number(self, pixels: NDArray[np.uint8], place: str) -> int:
        digest = pixel_digest(pixels)
        if (number := self._pictures.get(digest)) is None:
            number = self._pictures[digest] = len(self._prints)
            self._prints.append(picture_print(pixels))
            self._shown[number].append((np.zeros(0, np.uint64), place))
            self._index = None
        return number

    def find(self, texts: Sequence[str], pictures: Iterable[tuple[str, bytes]]) -> Found | None:
        """Whether a judgement shares something with the sets.

        Args:
            texts: its questions and answers.
            pictures: digest of the pixels and print of each of its pictures.
        """
        shown = list(pictures)
        same = sorted({number for digest, print_ in shown for number in self._same(digest, print_)})
        if not same and (shown or not self._bare):
            return None
        mine = [ngrams(text, self.n) for text in texts]
        for number in same:
            for grams, place in self._shown[number]:
                if any(len(np.intersect1d(grams, some)) for some in mine):
                    return Found("evaluation_question", place)
        if same:
            return Found("evaluation_picture", self._shown[same[0]][0][1])
        for gram in (gram for some in mine for gram in some.tolist()):
            if gram in self._bare:
                return Found("evaluation_text", self._bare[gram])
        return None

    def _same(self, digest: str, print_: bytes) -> list[int]:
        if (number := self._pictures.get(digest)) is not None:
            return [number]
        if not self._prints:
            return []
        if self._index is None:
            self._index = PrintIndex.of(self._prints)
        return self._index.near(print_)
