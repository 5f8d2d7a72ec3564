"""Candidates in columns: a hundred thousand take some 35 MB, where an object for each would take ten times that."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import lt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from annotation.core import Kind
from annotation.routing.plan import Candidate, Key
from services.errors import InvalidInput

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
"""Of candidates in a pool, from 0."""
Mask = NDArray[np.bool_]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
Label = TypeVar("Label", bound=Hashable)


def microseconds(time: datetime) -> int:
    """Since 1970, of an aware time."""
    return (time - _EPOCH) // _MICROSECOND


@dataclass(frozen=True, eq=False)
class Pool:
    """Candidates, ordered by id and kind; make it with `of` or `ordered`. Its columns are one entry a candidate.

    Attributes:
        ids, digests: as in `Candidate`.
        created: microseconds since 1970, UTC, int64.
        risk, score, missed: as in `Candidate`, float64.
        like: candidates that differ in what the columns do not hold: kind, speciality, caller, flags and the like.
        which: of `like`, an index a candidate.
    """

    ids: list[str]
    digests: list[str]
    created: NDArray[np.int64]
    risk: Floats
    score: Floats
    missed: Floats
    like: list[Candidate]
    which: Places

    @classmethod
    def of(cls, candidates: Iterable[Candidate]) -> Pool:
        """Raises InvalidInput: an item comes twice, or a number is out of range; the message names the field."""
        ones = list(candidates)
        if any(one.created_at.tzinfo is None for one in ones):
            raise InvalidInput("needs a time zone", field="candidates.created_at")
        like: dict[Candidate, int] = {}
        bare = [
            replace(one, id="", digest="", created_at=_EPOCH, risk=0.0, score=0.0, missed=0.0) for one in ones
        ]
        which = [like.setdefault(one, len(like)) for one in bare]
        figures = [(one.risk, one.score, one.missed) for one in ones]
        risk, score, missed = np.asarray(figures, dtype=np.float64).reshape(-1, 3).T
        return cls.ordered(
            [one.id for one in ones],
            [one.digest for one in ones],
            np.asarray([microseconds(one.created_at) for one in ones], dtype=np.int64),
            risk,
            score,
            missed,
            list(like),
            np.asarray(which, dtype=np.intp),
        )

    @classmethod
    def ordered(
        cls,
        ids: list[str],
        digests: list[str],
        created: NDArray[np.int64],
        risk: Floats,
        score: Floats,
        missed: Floats,
        like: list[Candidate],
        which: Places,
    ) -> Pool:
        """Of columns in any order. Raises: as `of`."""
        for figures in (risk, score, missed):
            if not ((figures >= 0) & (figures <= 1)).all():  # NaN fails too
                raise InvalidInput("must be 0 to 1", field="candidates.risk, score, missed")
        if not all(map(lt, ids, islice(ids, 1, None))):
            keys = [(id, like[of].kind) for id, of in zip(ids, which.tolist(), strict=True)]
            if len(set(keys)) < len(keys):
                raise InvalidInput("an item comes twice", field="candidates.id")
            places = sorted(range(len(keys)), key=keys.__getitem__)
            ids, digests = [ids[place] for place in places], [digests[place] for place in places]
            created, which = created[places], which[places]
            risk, score, missed = risk[places], score[places], missed[places]
        return cls(ids, digests, created, risk, score, missed, like, which)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> Candidate:
        return replace(
            self._like(place),
            id=self.ids[place],
            digest=self.digests[place],
            created_at=_EPOCH + int(self.created[place]) * _MICROSECOND,
            risk=float(self.risk[place]),
            score=float(self.score[place]),
            missed=float(self.missed[place]),
        )

    def kind(self, place: int) -> Kind:
        return self._like(place).kind

    def cell(self, place: int) -> tuple[Kind, str]:
        """Kind and speciality."""
        like = self._like(place)
        return like.kind, like.speciality

    def _like(self, place: int) -> Candidate:
        return self.like[int(self.which[place])]

    def find(self, id: str) -> range:
        """Places of the items of one interaction."""
        return range(bisect_left(self.ids, id), bisect_right(self.ids, id))

    def places(self, keys: Iterable[Key]) -> list[int]:
        """Of those of `keys` that are candidates."""
        return [place for id, kind in keys for place in self.find(id) if self.kind(place) is kind]

    def mask(self, holds: Callable[[Candidate], bool]) -> Mask:
        """Of what `like` tells."""
        return np.fromiter(map(holds, self.like), np.bool_, len(self.like))[self.which]

    def labels(self, of: Callable[[Candidate], Label]) -> tuple[list[Label], Places]:
        """What `like` tells: the different answers, and for each candidate the number of its own."""
        numbers: dict[Label, int] = {}
        own = [numbers.setdefault(of(like), len(numbers)) for like in self.like]
        return list(numbers), np.asarray(own, dtype=np.intp)[self.which]
