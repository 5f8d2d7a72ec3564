"""The candidates that are not sent: made into objects one by one, when somebody looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import eq
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from annotation.core import Kind
from annotation.routing.plan import Key, Placement, Why

if TYPE_CHECKING:
    from annotation.routing.pool import Floats, Places, Pool

WHYS = tuple(Why)
NUMBER = {why: number for number, why in enumerate(WHYS)}


@dataclass(frozen=True, eq=False)
class Withheld(Sequence[Placement]):
    """In the order of id and kind.

    Attributes:
        places: in `pool`, rising.
        whys: of WHYS, a number for each candidate of `pool`; int8.
        digests: by kind and digest, the id that is or was sent.
        weights: by place in `pool`.
        draws: of the random share, for each candidate of `pool`.
    """

    pool: Pool
    places: Places
    whys: NDArray[np.int8]
    digests: Mapping[tuple[Kind, str], str]
    weights: Mapping[int, float]
    draws: Floats

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, which: int) -> Placement: ...
    @overload
    def __getitem__(self, which: slice) -> tuple[Placement, ...]: ...
    def __getitem__(self, which: int | slice) -> Placement | tuple[Placement, ...]:
        if isinstance(which, slice):
            return tuple(self._at(int(place)) for place in self.places[which])
        return self._at(int(self.places[which]))

    def __iter__(self) -> Iterator[Placement]:
        return (self._at(int(place)) for place in self.places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    def _at(self, place: int) -> Placement:
        one, why = self.pool[place], WHYS[self.whys[place]]
        of = self.digests[one.kind, one.digest] if why is Why.DUPLICATE else ""
        return Placement(one, None, why, of, self.weights.get(place, 0.0), float(self.draws[place]))

    def of(self, id: str) -> list[Placement]:
        """Those of one interaction."""
        return [self._at(place) for place in self.pool.find(id) if self.whys[place] >= 0]

    def why(self, key: Key) -> Why | None:
        """None for what is sent, or was no candidate."""
        return next((WHYS[self.whys[at]] for at in self.pool.places([key]) if self.whys[at] >= 0), None)

    def weighty(self) -> Iterator[Placement]:
        """Those of a weight."""
        return (self._at(place) for place in sorted(self.weights) if self.whys[place] >= 0)

    def counts(self) -> Counter[tuple[str, str, str]]:
        """By why, kind and speciality."""
        many = len(self.pool.like)
        codes = self.whys[self.places] * np.intp(many) + self.pool.which[self.places]
        found: Counter[tuple[str, str, str]] = Counter()
        for code, count in zip(
            *(each.tolist() for each in np.unique(codes, return_counts=True)), strict=True
        ):
            like = self.pool.like[code % many]
            found[str(WHYS[code // many]), str(like.kind), like.speciality] += count
        return found
