"""Blocks of the key-value cache: who holds which, and which hold a prefix that can be used again.

    free ──take──► held ──release──► kept for its content (if registered) ──take/evict──► held by somebody else
                    ▲ ▲                     │
                    │ └──────find───────────┘
                  share

A full block whose tokens are known is registered under the hash of everything up to its end. A block has any number
of holders; one that nobody holds keeps its content until the room is needed, oldest first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


class BlockPool:
    """Counts blocks 0…size-1; knows nothing of their memory. The engine's thread alone mutates it."""

    def __init__(self, size: int, block: int) -> None:
        """block: tokens in one block."""
        self.size, self.block = size, block
        self._free = list(range(size - 1, -1, -1))  # the lowest number goes first: memory stays compact
        self._holders = [0] * size
        self._hash: list[bytes | None] = [None] * size
        self._by_hash: dict[bytes, int] = {}
        self._kept: OrderedDict[int, None] = OrderedDict()  # held by nobody, content usable; oldest first

    @property
    def available(self) -> int:
        """Blocks that `take` can give."""
        return len(self._free) + len(self._kept)

    @property
    def held(self) -> int:
        return self.size - self.available

    @property
    def registered(self) -> int:
        """Blocks whose content can be found."""
        return len(self._by_hash)

    def take(self) -> int | None:
        """A block for the caller alone; None where all are held."""
        if self._free:
            index = self._free.pop()
        elif self._kept:
            index, _ = self._kept.popitem(last=False)
            self._forget(index)
        else:
            return None
        self._holders[index] = 1
        return index

    def release(self, index: int) -> None:
        """One holder lets go."""
        self._holders[index] -= 1
        if self._holders[index] == 0:
            if self._hash[index] is None:
                self._free.append(index)
            else:
                self._kept[index] = None

    def register(self, index: int, key: bytes) -> None:
        """The block's content is whole, and is that of `key`. The first block of a key stays its block."""
        if key not in self._by_hash and self._hash[index] is None:
            self._by_hash[key], self._hash[index] = index, key

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """Blocks of the longest known prefix of `keys`, each held once more by the caller."""
        found: list[int] = []
        for key in keys:
            index = self._by_hash.get(key)
            if index is None:
                break
            if self._holders[index] == 0:
                del self._kept[index]
            self._holders[index] += 1
            found.append(index)
        return found

    def first_missing(self, keys: Sequence[bytes]) -> bytes | None:
        """The first of `keys` that no block has the content of."""
        return next((key for key in keys if key not in self._by_hash), None)

    def holders(self, index: int) -> int:
        return self._holders[index]

    def forget(self, index: int) -> None:
        """The block's content is not to be trusted."""
        if self._hash[index] is not None:
            self._forget(index)
            if index in self._kept:
                del self._kept[index]
                self._free.append(index)

    def _forget(self, index: int) -> None:
        key = self._hash[index]
        if key is not None:
            del self._by_hash[key]
            self._hash[index] = None

    def problems(self, held: Sequence[int]) -> list[str]:
        """What is wrong, if `held` are all blocks that somebody holds, once per holder."""
        counts = np.bincount(np.asarray(held, np.int64), minlength=self.size).tolist()
        free, kept = set(self._free), set(self._kept)
        owned = {index for index, count in enumerate(counts) if count}
        checks = {
            "a block's holders are miscounted": counts != self._holders,
            "a block is free twice": len(free) != len(self._free),
            "a block is free and held": bool((free | kept) & owned) or bool(free & kept),
            "a block is neither free nor held": len(free) + len(kept) + len(owned) != self.size,
            "a free block has content": any(self._hash[index] is not None for index in free),
            "a kept block has no content": any(self._hash[index] is None for index in kept),
            "the index of contents is wrong": any(self._hash[i] != key for key, i in self._by_hash.items())
            or sum(key is not None for key in self._hash) != len(self._by_hash),
        }
        return [name for name, present in checks.items() if present]


def prefix_keys(ids: NDArray[np.int64], block: int, seed: bytes = b"") -> list[bytes]:
    """Key of each full block of `ids`: a digest of all ids up to the block's end.

    seed: what else the blocks' content depends on: the digest of the adapter that they are read under.
    """
    keys: list[bytes] = []
    parent = seed
    whole = np.ascontiguousarray(ids[: len(ids) // block * block], np.int64).reshape(-1, block)
    for part in whole:
        # A cryptographic digest: nobody can craft a prompt that is answered from somebody else's cache.
        parent = blake2b(parent + part.tobytes(), digest_size=16).digest()
        keys.append(parent)
    return keys
