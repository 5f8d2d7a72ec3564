"""Which rows share a sequence, and in which order they are learnt."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WINDOW = 1024


@dataclass(frozen=True)
class Packs:
    """`rows` int64 [n], and `starts` int64 [packs + 1]: pack k holds rows[starts[k] : starts[k + 1]]."""

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> list[int]:
        rows: list[int] = self.rows[self.starts[index] : self.starts[index + 1]].tolist()
        return rows


def pack(order: NDArray[np.int64], lengths: NDArray[np.int32], limit: int, rng: np.random.Generator) -> Packs:
    """Rows into packs of at most `limit` ids, each row once and whole.

    Rows that stand within a window of the order are put where they leave the least room, longest first; packs of a
    window come in random order.

    Args:
        lengths: int32 [rows of the source], each at most `limit`.
    """
    packs: list[list[int]] = []
    for first in range(0, len(order), _WINDOW):
        window = order[first : first + _WINDOW]
        window = window[np.argsort(-lengths[window], kind="stable")]
        made: list[list[int]] = []
        room: list[tuple[int, int]] = []  # room left and number of each pack, ascending
        for row in window.tolist():
            length = int(lengths[row])
            place = bisect.bisect_left(room, (length, -1))
            if place < len(room):
                left, number = room.pop(place)
                made[number].append(row)
                bisect.insort(room, (left - length, number))
            else:
                made.append([row])
                bisect.insort(room, (limit - length, len(made) - 1))
        packs += [made[int(number)] for number in rng.permutation(len(made))]
    starts = np.cumsum([0, *(len(members) for members in packs)]).astype(np.int64)
    return Packs(np.array([row for members in packs for row in members], np.int64), starts)
