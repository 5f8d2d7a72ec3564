"""Sequences that share one row of a batch without seeing each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.rows.sequence import Example


@dataclass(frozen=True)
class Batch:
    """One pack of T positions in all.

    `ids`, `labels` int64 [1, T]; `sequence`, `block` int64 [T], which example and which of its answers a position is
    of; `keep` bool [T], where the base's probabilities are learnt; `positions` int64 [1, T]; `mask` bool [1, 1, T, T]. The
    last two are None for a lone plain sequence.
    """

    ids: Tensor
    labels: Tensor
    sequence: Tensor
    block: Tensor
    keep: Tensor
    positions: Tensor | None
    mask: Tensor | None


def collate(examples: Sequence[Example], device: str = "cpu") -> Batch:
    """A position sees its own example up to itself, but nothing of another answer."""

    def joined(parts: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(device)

    sequence = joined([np.full(len(example), index) for index, example in enumerate(examples)])
    block = joined([example.block for example in examples])
    keep = joined([np.full(len(example), example.keep) for example in examples])
    ids, labels = joined([e.ids for e in examples]), joined([e.labels for e in examples])
    if len(examples) == 1 and not block.any():
        return Batch(ids[None], labels[None], sequence, block, keep, None, None)
    sees = sequence[:, None] == sequence[None, :]
    sees &= (block[None, :] == 0) | (block[:, None] == block[None, :])
    sees &= torch.ones(len(ids), len(ids), dtype=torch.bool, device=device).tril()
    positions = joined([example.positions for example in examples])
    return Batch(ids[None], labels[None], sequence, block, keep, positions[None], sees[None, None])
