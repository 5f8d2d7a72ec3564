"""The rows of the running batch and the cache blocks that each holds."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.checkpoint.config import ModelConfig
from services.llm.blocks import BlockPool, prefix_keys
from services.llm.kv_cache import BLOCK, KVCache, blocks_for
from services.llm.rows import RowState
from services.llm.sequence import Row
from services.llm.step import Chunk, Share, Step

# Fewer tokens of one row than this attend each by itself, as rows that generate do.
_CHUNK = 32


class Batch:
    """Places for rows, and their blocks; the engine's thread alone mutates it.

    Attributes:
        length: int64 [capacity], ids known of each row.
        read: int64 [capacity], those of them whose keys and values are in the cache.
        ahead: int64 [capacity], drafted ids beyond `length` that the next step reads as well.
        blocks: int64 [capacity], how many blocks each row has.
        adapter: int64 [capacity], the adapter that each row runs under, from 1; 0 = none.
        filling: rows that will have blocks for others to find once they are read.
    """

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        cache: KVCache,
        *,
        reuse: bool = True,
        window: int = 1,
        codes: int = 0,
        seeds: Rows[bytes] = (),
    ) -> None:
        """
        Args:
            reuse: whether rows may share the blocks of a common prefix.
            window: ids of a row whose hidden states one step may want; above 1, image codes are drafted.
            codes: image codes that there are.
            seeds: digests of the adapters that there are, of which rows of one share no block with those of another.
        """
        self.capacity, self.cache, self._reuse, self.window = rows, cache, reuse, window
        self.device = cache.keys.device
        self.pool = BlockPool(cache.keys.shape[1], BLOCK)
        self.state = RowState(config, rows, self.device, window if window > 1 else 0, codes)
        self.length: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.read: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.ahead: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.blocks: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.adapter: NDArray[np.int64] = np.zeros(rows, np.int64)
        self._seeds = (b"", *seeds)
        self.filling: set[Row] = set()
        self._tables = np.zeros((rows, blocks_for(config.context)), np.int32)
        self._free = list(range(rows - 1, -1, -1))

    @property
    def rows(self) -> int:
        """Rows in use."""
        return self.capacity - len(self._free)

    def add(self, row: Row, ids: NDArray[np.int64], *, saved: Rows[Tensor] | None = None) -> int:
        """Give `row` a place and the cached blocks of its prefix.

        Args:
            ids: int64 [length], all that is known of it.
            saved: its `RowState`, where it was here before.

        Returns:
            Ids that need not be read again, since the cache has them.
        """
        row.index = self._free.pop()
        if saved is None:
            self.state.begin(row.index, torch.from_numpy(ids).to(self.device))
        else:
            self.state.restore(row.index, saved)
        self.adapter[row.index] = row.adapter
        row.keys = self.keys(ids, row.adapter) if self._reuse else []
        # The last id is always read: what follows is drawn from its hidden state.
        row.blocks = self.pool.find(row.keys[: (len(ids) - 1) // BLOCK])
        row.registered = len(row.blocks)
        if row.registered < len(row.keys):
            self.filling.add(row)
        self._tables[row.index, : len(row.blocks)] = row.blocks
        self.blocks[row.index] = len(row.blocks)
        self.length[row.index], self.read[row.index] = len(ids), len(row.blocks) * BLOCK
        return len(row.blocks) * BLOCK

    def keys(self, ids: NDArray[np.int64], adapter: int) -> list[bytes]:
        """What the full blocks of `ids`, read under an adapter (0 = none), are found by."""
        return prefix_keys(ids, BLOCK, self._seeds[adapter])

    def remove(self, row: Row) -> None:
        """Free a row's place and blocks."""
        for block in row.blocks:
            self.pool.release(block)
        self._free.append(row.index)
        self.filling.discard(row)
        self.ahead[row.index] = 0
        row.index, row.blocks, row.keys, row.registered = -1, [], [], 0

    def ids(self, row: Row) -> NDArray[np.int64]:
        """All that is known of a row, int64 [length]; waits for the device."""
        ids: NDArray[np.int64] = self.state.tokens[row.index, : self.length[row.index]].cpu().numpy()
        return ids

    def grow(self, row: Row, tokens: int) -> bool:
        """Give the row blocks for its first `tokens` positions; False where there are none left."""
        while len(row.blocks) * BLOCK < tokens:
            block = self.pool.take()
            if block is None:
                return False
            self._tables[row.index, len(row.blocks)] = block
            row.blocks.append(block)
            self.blocks[row.index] = len(row.blocks)
        return True

    def register(self, row: Row) -> None:
        """Let others find the row's blocks that are read and whose keys are known."""
        for index in range(row.registered, min(len(row.keys), int(self.read[row.index]) // BLOCK)):
            self.pool.register(row.blocks[index], row.keys[index])
            row.registered = index + 1
        if row.registered == len(row.keys):
            self.filling.discard(row)

    def register_all(self, row: Row) -> None:
        """As `register`, generated ids included."""
        if self._reuse:
            row.keys = self.keys(self.ids(row), row.adapter)
            self.register(row)

    def spoil(self, row: Row) -> None:
        """The row's numbers are not to be trusted: forget and wipe the blocks that it alone holds."""
        for block in row.blocks:
            if self.pool.holders(block) == 1:
                self.pool.forget(block)
                self.cache.clear(block)

    def step(self, places: NDArray[np.int64], counts: NDArray[np.int64]) -> Step:
        """The step that reads `counts` more ids of the rows `places`, each at least one; advances `read`.

        Of a row that is then read as far as it is known, the hidden state of the last id is wanted, and of every draft.
        """
        # Rows that attend in one piece go last.
        long = counts >= _CHUNK
        if long.any():
            order = np.argsort(long, kind="stable")
            places, counts, long = places[order], counts[order], long[order]
        starts = np.cumsum(counts) - counts
        read, length, ahead = self.read[places], self.length[places], self.ahead[places]
        rows = np.repeat(places, counts)
        positions = np.arange(len(rows)) + np.repeat(read - starts, counts)
        chunks = tuple(
            Chunk(int(starts[i]), int(counts[i]), int(places[i]), int(read[i])) for i in np.flatnonzero(long)
        )
        singles = chunks[0].start if chunks else len(rows)
        self.read[places] = np.minimum(read + counts, length)
        wanted = np.where(read + counts == length + ahead, ahead + 1, 0)
        within = np.arange(wanted.sum()) - np.repeat(np.cumsum(wanted) - wanted, wanted)
        arrays = (
            rows,
            positions,
            np.repeat(starts + counts - wanted, wanted) + within,
            np.repeat(places * self.window, wanted) + within,
        )
        on_device = [torch.from_numpy(array).to(self.device) for array in arrays]
        return Step(
            ids=self.state.tokens[on_device[0], on_device[1]],
            rows=on_device[0],
            positions=on_device[1],
            tables=torch.from_numpy(self._tables).to(self.device),
            singles=singles,
            extent=int(positions[:singles].max()) + 1 if singles else 0,
            chunks=chunks,
            last=on_device[2],
            ends=on_device[3],
            shares=self._shares(places, counts),
        )

    def _shares(self, places: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[Share, ...]:
        adapters = self.adapter[places]
        if not adapters.any():
            return ()
        used, each = np.unique(adapters), np.repeat(adapters, counts)
        return tuple(
            Share(
                adapter - 1,
                None if len(used) == 1 else torch.from_numpy(np.flatnonzero(each == adapter)).to(self.device),
            )
            for adapter in used.tolist()
            if adapter
        )
