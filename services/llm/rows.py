"""What the device knows of every row of the running batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from services.checkpoint.config import ModelConfig


class RowState:
    """Tensors with one entry per row.

    Attributes:
        tokens: int64 [rows, context], ids by position.
        seen: bool [rows, vocabulary], ids that the repetition penalty counts.
        uniform: float64 [rows, context], the row's own random numbers by position.
        logprobs, entropies: float32 [rows, context], of the token drawn for each position.
        image_limit: int64 [rows], largest position at which a picture may begin; -1 = none.
        drafts: int64 [rows, window], the codes drafted to come next.
        draft_weights: float64 [rows, window, codes], the probabilities that each was drawn from.
    """

    def __init__(
        self, config: ModelConfig, rows: int, device: torch.device, window: int = 0, codes: int = 0
    ) -> None:
        """window: codes drafted ahead, of `codes` there are; 0 = none."""

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(rows, *shape, dtype=dtype, device=device)

        self.image_limit = zeros(dtype=torch.int64)
        self.tokens = zeros(config.context, dtype=torch.int64)
        self.seen = zeros(config.vocab_size, dtype=torch.bool)
        self.uniform = zeros(config.context, dtype=torch.float64)
        self.logprobs = zeros(config.context, dtype=torch.float32)
        self.entropies = zeros(config.context, dtype=torch.float32)
        self.drafts = zeros(window, dtype=torch.int64)
        self.draft_weights = zeros(window, codes, dtype=torch.float64)
        self._all = (
            self.image_limit,
            self.tokens,
            self.seen,
            self.uniform,
            self.logprobs,
            self.entropies,
            self.drafts,
            self.draft_weights,
        )

    def begin(self, row: int, ids: Tensor) -> None:
        """Row `row` holds `ids`, int64 [length], on the device, and nothing of whoever had it before."""
        self.image_limit[row] = -1
        self.seen[row] = False
        self.tokens[row, : len(ids)] = ids
        self.seen[row, ids] = True

    def save(self, row: int) -> tuple[Tensor, ...]:
        """A copy of all of a row, for `restore`."""
        return tuple(tensor[row].clone() for tensor in self._all)

    def restore(self, row: int, saved: Sequence[Tensor]) -> None:
        for tensor, value in zip(self._all, saved, strict=True):
            tensor[row] = value
