"""Attention of one step's tokens over the paged cache: on a CPU by compiled loops, elsewhere by torch alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from services.llm.kv_cache import BLOCK, KVCache, blocks_for
from services.llm.step import Chunk, Step


class Attention(ABC):
    """Writes a layer's new keys and values into the cache, which is all that it mutates, and attends over it."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, step: Step) -> Tensor:
        """q [N, heads, dim], k and v [N, kv_heads, dim] of the step's N tokens → [N, heads · dim].

        Token n sees the positions of its row up to its own.
        """
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        self._store(keys, values, k, v, step)
        mixed = torch.empty_like(q)
        if step.singles:
            self._singles(keys, values, q, mixed, step)
        for chunk in step.chunks:
            part = slice(chunk.start, chunk.start + chunk.count)
            mixed[part] = chunk_attention(keys, values, q[part], chunk, step.tables)
        return mixed.flatten(1)

    @abstractmethod
    def _store(self, keys: Tensor, values: Tensor, k: Tensor, v: Tensor, step: Step) -> None:
        """Write k and v at the places of the step's tokens."""

    @abstractmethod
    def _singles(self, keys: Tensor, values: Tensor, q: Tensor, mixed: Tensor, step: Step) -> None:
        """Attention of the first `step.singles` tokens into `mixed`."""


def chunk_attention(keys: Tensor, values: Tensor, q: Tensor, chunk: Chunk, tables: Tensor) -> Tensor:
    """Attention of the tokens of one row that follow each other, [count, heads, dim]; `keys` and `values` are one layer's."""
    length = chunk.position + chunk.count
    table = tables[chunk.row, : blocks_for(length)].long()
    # [kv_heads, length, dim]
    k = keys[table].permute(1, 0, 3, 2).flatten(1, 2)[:, :length]
    v = values[table].transpose(0, 1).flatten(1, 2)[:, :length]
    mask = None
    if chunk.position:
        mask = torch.ones(chunk.count, length, dtype=torch.bool, device=q.device).tril(chunk.position)
    mixed = functional.scaled_dot_product_attention(
        q.transpose(0, 1).unsqueeze(0),
        k.unsqueeze(0),
        v.unsqueeze(0),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=q.shape[1] != len(k),
    )
    return mixed[0].transpose(0, 1)


class TorchAttention(Attention):
    """For any device: gathers the blocks of every row, then torch's own attention."""

    def _store(self, keys: Tensor, values: Tensor, k: Tensor, v: Tensor, step: Step) -> None:
        blocks = step.tables[step.rows, step.positions // BLOCK].long()
        offsets = step.positions % BLOCK
        keys[blocks, :, :, offsets] = k
        values[blocks, :, offsets] = v

    def _singles(self, keys: Tensor, values: Tensor, q: Tensor, mixed: Tensor, step: Step) -> None:
        part = slice(step.singles)
        count = blocks_for(step.extent)
        tables = step.tables[step.rows[part], :count].long()
        # [n, kv_heads, count · BLOCK, dim]
        k = keys[tables].permute(0, 2, 1, 4, 3).flatten(2, 3)
        v = values[tables].transpose(1, 2).flatten(2, 3)
        beyond = torch.arange(count * BLOCK, device=q.device) > step.positions[part].unsqueeze(1)
        mask = torch.zeros(beyond.shape, dtype=q.dtype, device=q.device).masked_fill_(beyond, -torch.inf)
        # The query heads of one key head stand in as its "positions": no copies of keys for grouped queries.
        n, kv_heads, dim = len(k), k.shape[1], q.shape[2]
        grouped = q[part].view(n, kv_heads, -1, dim)
        mixed[part] = functional.scaled_dot_product_attention(
            grouped, k, v, attn_mask=mask[:, None, None]
        ).view(n, -1, dim)


class CpuAttention(Attention):
    """Loops compiled by numba, shared among `threads` where there is much to do."""

    _WORTH_SHARING = 2_000_000  # multiplications of one call

    def __init__(self, cache: KVCache, threads: int) -> None:
        super().__init__(cache)
        from services.llm import cpu

        self._loops = cpu
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "attention") if threads > 1 else None

    def _store(self, keys: Tensor, values: Tensor, k: Tensor, v: Tensor, step: Step) -> None:
        self._loops.store(raw(k), raw(v), raw(keys), raw(values), *step.host)

    def _singles(self, keys: Tensor, values: Tensor, q: Tensor, mixed: Tensor, step: Step) -> None:
        part = slice(step.singles)
        narrow = q.dtype == torch.bfloat16
        queries = q[part].float() if narrow else q[part].contiguous()
        out = torch.empty_like(queries) if narrow else mixed[part]
        arguments = (
            queries.numpy(),
            raw(keys),
            raw(values),
            *step.host,
            out.numpy(),
        )
        work = step.singles * q.shape[1] * q.shape[2] * step.extent
        shares = 1 if self._pool is None or work < self._WORTH_SHARING else min(self._threads, step.singles)
        bounds = [step.singles * share // shares for share in range(shares + 1)]
        others: list[Future[Any]] = []
        if self._pool is not None:
            others = [
                self._pool.submit(self._loops.attend, *arguments, bounds[i], bounds[i + 1])
                for i in range(1, shares)
            ]
        self._loops.attend(*arguments, 0, bounds[1])
        for other in others:
            other.result()
        if narrow:
            mixed[part] = out


def raw(tensor: Tensor) -> NDArray[np.generic]:
    """The tensor's memory as numpy has it: bfloat16, which numpy lacks, as uint16."""
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy()
    return tensor.contiguous().numpy()


def attention_for(cache: KVCache, threads: int) -> Attention:
    """The quickest for the cache's device and type."""
    if cache.keys.device.type == "cpu" and cache.keys.dtype != torch.float16:
        return CpuAttention(cache, threads)
    return TorchAttention(cache)
