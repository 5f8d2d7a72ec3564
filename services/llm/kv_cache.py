"""Keys and values of every position that running sequences have read, in blocks."""

from __future__ import annotations

import contextlib
import math
import mmap

import torch
from torch import Tensor

from services.checkpoint.config import ModelConfig

BLOCK = 16
"""Tokens in a block."""


class KVCache:
    """Memory of `blocks` blocks. `BlockPool` says who holds which; memory of blocks never used is not touched.

    Attributes:
        keys: [layers, blocks, kv_heads, head_dim, BLOCK], this rank's heads; the positions of a block side by side, so that
            a query meets a whole block at once.
        values: [layers, blocks, kv_heads, BLOCK, head_dim].
    """

    def __init__(
        self, config: ModelConfig, blocks: int, dtype: torch.dtype, device: torch.device, ranks: int = 1
    ) -> None:
        kv_heads = max(1, config.num_key_value_heads // ranks)
        outer, dim = (config.num_hidden_layers, blocks, kv_heads), config.head_dim
        self.keys = _zeros((*outer, dim, BLOCK), dtype, device)
        self.values = _zeros((*outer, BLOCK, dim), dtype, device)

    @staticmethod
    def bytes_per_block(config: ModelConfig, dtype: torch.dtype, ranks: int = 1) -> int:
        """Memory of one block on each of `ranks` ranks."""
        kv_heads = max(1, config.num_key_value_heads // ranks)
        return 2 * config.num_hidden_layers * kv_heads * BLOCK * config.head_dim * dtype.itemsize

    def touch(self) -> None:
        """Write all of the memory once: on a machine that hands pages out as they are first written, that takes its time."""
        self.keys.zero_()
        self.values.zero_()

    def clear(self, block: int) -> None:
        """Zero a block, so that nothing that is not a number stays in it."""
        self.keys[:, block] = 0
        self.values[:, block] = 0


def blocks_for(tokens: int) -> int:
    """Blocks that hold this many tokens."""
    return -(-tokens // BLOCK)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # Pages cost memory only once they are written; large ones, where the system has them, are few to fault in and to look up.
    raw = mmap.mmap(-1, max(1, math.prod(shape) * dtype.itemsize))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # the system has none
            raw.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(raw, dtype=dtype, count=math.prod(shape)).view(shape)
