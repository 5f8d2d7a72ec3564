"""Keys and values of every position that running sequences have read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from services.checkpoint.config import ModelConfig


class KVCache:
    """Preallocated memory of `rows` rows, each as long as the context.

    Rows in use are always the first ones, so that a step reads them as one view without gathering: whoever
    frees a row moves the last one into its place (`move`). Memory of rows never used is not touched.
    """

    def __init__(self, config: ModelConfig, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (config.num_hidden_layers, rows, config.num_key_value_heads, config.context, config.head_dim)
        self.keys, self.values = _zeros(shape, dtype, device), _zeros(shape, dtype, device)
        self.rows = rows
        self._index = torch.arange(rows, device=device)

    @staticmethod
    def bytes_per_row(config: ModelConfig, dtype: torch.dtype) -> int:
        return config.kv_elements_per_token * config.context * dtype.itemsize

    def write_prompts(self, layer: int, first_row: int, k: Tensor, v: Tensor) -> None:
        """k, v: [B, T, kv_heads, head_dim] at positions 0…T-1 of rows `first_row`…."""
        rows, length = k.shape[:2]
        self.keys[layer, first_row : first_row + rows, :, :length] = k.transpose(1, 2)
        self.values[layer, first_row : first_row + rows, :, :length] = v.transpose(1, 2)

    def append(
        self, layer: int, positions: Tensor, k: Tensor, v: Tensor, extent: int
    ) -> tuple[Tensor, Tensor]:
        """Write k, v [rows, kv_heads, head_dim] at `positions` [rows] of the first rows.

        Returns:
            Views of keys and values, [rows, kv_heads, extent, head_dim].
        """
        rows = len(positions)
        keys, values = self.keys[layer, :rows], self.values[layer, :rows]
        index = self._index[:rows]
        keys[index, :, positions] = k
        values[index, :, positions] = v
        return keys[:, :, :extent], values[:, :, :extent]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of row `source` over row `target`."""
        for cache in (self.keys, self.values):
            cache[:, target, :, :length] = cache[:, source, :, :length]

    def clear(self, row: int) -> None:
        """Zero a row: masked positions still meet the softmax's zeros, and 0 times NaN is NaN."""
        self.keys[:, row] = 0
        self.values[:, row] = 0


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # numpy's zeros come from calloc: pages cost memory only once they are written.
    raw = np.zeros(int(np.prod(shape)) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(raw).view(dtype).view(shape)
