"""What the device knows of every row of the running batch."""

from __future__ import annotations

import torch
from torch import Tensor

from services.checkpoint.config import ModelConfig


class RowState:
    """Tensors with one entry per row; rows in use come first, as in the key-value cache.

    Attributes:
        next_ids: int64 [rows], the id that the next step reads.
        positions: int64 [rows], the position that id takes, which is the number of positions in the cache.
        tokens: int64 [rows, context], ids by position.
        seen: bool [rows, vocabulary], ids that the repetition penalty counts.
        uniform: float64 [rows, context], the row's own random numbers by position.
        logprobs, entropies: float32 [rows, context], of the token drawn for each position.
        image_limit: int64 [rows], largest position at which a picture may begin; -1 = none.
    """

    def __init__(self, config: ModelConfig, rows: int, device: torch.device) -> None:
        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(rows, *shape, dtype=dtype, device=device)

        self.next_ids = zeros(dtype=torch.int64)
        self.positions = zeros(dtype=torch.int64)
        self.image_limit = zeros(dtype=torch.int64)
        self.tokens = zeros(config.context, dtype=torch.int64)
        self.seen = zeros(config.vocab_size, dtype=torch.bool)
        self.uniform = zeros(config.context, dtype=torch.float64)
        self.logprobs = zeros(config.context, dtype=torch.float32)
        self.entropies = zeros(config.context, dtype=torch.float32)
        self._all = (
            self.next_ids,
            self.positions,
            self.image_limit,
            self.tokens,
            self.seen,
            self.uniform,
            self.logprobs,
            self.entropies,
        )

    def move(self, source: int, target: int) -> None:
        """Copy row `source` over row `target`."""
        for tensor in self._all:
            tensor[target] = tensor[source]
