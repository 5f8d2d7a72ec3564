"""Near-duplicates: questions about the same pictures that say almost the same. The newest judgement wins.

Candidates come from MinHash LSH (`datasketch`); each is compared in full. Two questions that differ in a number, a side or
a negation are never the same, however long they are.
"""

from __future__ import annotations

from itertools import groupby
from zlib import crc32

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from annotation.dataset.prints import words
from annotation.dataset.staging import Staging

_PERMUTATIONS = 64
_SHINGLE = 4  # characters
_TELLING = frozenset((
    "no", "not", "without", "none", "never", "absent", "negative", "deny", "denies", "nor", "neither",
    "left", "right", "bilateral", "both", "upper", "lower", "middle", "anterior", "posterior", "medial",
    "lateral", "superior", "inferior", "before", "after", "more", "less", "larger", "smaller", "increased",
    "decreased",
))  # fmt: skip
_SMALL = frozenset("aisd")  # letters that are words, or ends of words


def telling(text: str) -> str:
    """The words that turn a question into another one, in order: sides, negations, numbers, letters of choices."""
    return " ".join(
        word
        for word in words(text)
        if word in _TELLING or any(c.isdigit() for c in word) or (len(word) == 1 and word not in _SMALL)
    )


def shingles(text: str) -> NDArray[np.uint32]:
    """Hashes of the runs of four characters of the normalised text (of a shorter one the whole), sorted."""
    said = " ".join(words(text))
    runs = {said[i : i + _SHINGLE].encode() for i in range(max(1, len(said) - _SHINGLE + 1))}
    return np.array(sorted(map(crc32, runs)), np.uint32)


class Similar:
    """Whether two questions are the same; and what LSH needs for it, which takes a moment to work out."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        # A lower threshold than wanted, so that few near ones are missed; the comparison in full decides.
        lsh = MinHashLSH(threshold=max(0.4, threshold - 0.15), num_perm=_PERMUTATIONS)
        self.params = (lsh.b, lsh.r)
        self.base = MinHash(num_perm=_PERMUTATIONS, seed=1)

    def same(self, one: NDArray[np.uint32], other: NDArray[np.uint32]) -> bool:
        shared = len(np.intersect1d(one, other, assume_unique=True))
        return shared >= self.threshold * (len(one) + len(other) - shared)


class Kept:
    """The questions of one group that are kept. Some 3 kB each."""

    def __init__(self, similar: Similar) -> None:
        self._similar = similar
        self._lsh = MinHashLSH(num_perm=_PERMUTATIONS, params=similar.params)
        self._kept: list[tuple[str, NDArray[np.uint32]]] = []
        self._exact: dict[bytes, str] = {}

    def claim(self, text: str, owner: str) -> str | None:
        """The owner of a kept question that is the same; else None, and this one is kept as `owner`'s."""
        mine = shingles(text)
        if (known := self._exact.get(mine.tobytes())) is not None:
            return known
        sketch = self._similar.base.copy()
        sketch.update_batch([shingle.tobytes() for shingle in mine])
        for index in sorted(self._lsh.query(sketch)):  # type: ignore[type-var]
            other, theirs = self._kept[int(index)]  # type: ignore[call-overload]
            if self._similar.same(mine, theirs):
                return other
        self._lsh.insert(len(self._kept), sketch)
        self._kept.append((owner, mine))
        self._exact[mine.tobytes()] = owner
        return None


def dedupe(staging: Staging, threshold: float) -> None:
    """Drop what says the same as a newer judgement; `because` names that one's interaction."""
    similar = Similar(threshold)
    crowded = "alike IN (SELECT alike FROM staged WHERE reason IS NULL GROUP BY alike HAVING count(*) > 1)"
    for _, group in groupby(staging.each("alike, rank DESC", crowded), lambda staged: staged.alike):
        kept = Kept(similar)
        for staged in group:
            if (winner := kept.claim(staged.question, staged.interaction)) is not None:
                staging.reject(staged, "near_duplicate", winner)
