"""Keys and values of every position that running sequences have read, in blocks."""

from __future__ import annotations

import numpy as np
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
    # numpy's zeros come from calloc: pages cost memory only once they are written.
    raw = np.zeros(int(np.prod(shape)) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(raw).view(dtype).view(shape)
