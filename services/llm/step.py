"""What one step reads: the same for every rank of a tensor-parallel group."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Chunk:
    """Tokens of a step that follow each other in one row and are attended to in one piece.

    Attributes:
        start, count: where they lie in the step.
        row: their row.
        position: of the first of them in its row.
    """

    start: int
    count: int
    row: int
    position: int


@dataclass(frozen=True)
class Share:
    """Tokens of a step that run under one adapter.

    Attributes:
        adapter: which, from 0.
        tokens: int64 [n], their places in the step; None where they are all of it.
    """

    adapter: int
    tokens: Tensor | None


@dataclass(frozen=True)
class Step:
    """N tokens of any rows; those of one row in order.

    Attributes:
        ids, rows, positions: int64 [N], each token, its row and its position there.
        tables: int32 [rows, blocks of a row], the cache blocks of every row.
        singles: how many of the tokens, the first ones, attend each by itself.
        extent: largest position among those plus one.
        chunks: the rest.
        last: int64 [R], which tokens' hidden states are wanted.
        ends: int64 [R], where these are kept: row · window, and for drafts the places after it.
        shares: who runs under which adapter; empty where nobody runs under any.
    """

    ids: Tensor
    rows: Tensor
    positions: Tensor
    tables: Tensor
    singles: int
    extent: int
    chunks: tuple[Chunk, ...]
    last: Tensor
    ends: Tensor
    shares: tuple[Share, ...] = ()

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """The adapter that each token runs under, from 1, [N]; 0 = none. For a step on the CPU."""
        owners = np.zeros(len(self.rows), np.int64)
        for share in self.shares:
            owners[slice(None) if share.tokens is None else share.tokens.numpy()] = share.adapter + 1
        return owners

    @cached_property
    def host(self) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Tables, rows and positions as numpy has them; for a step on the CPU."""
        return self.tables.numpy(), self.rows.numpy(), self.positions.numpy()
