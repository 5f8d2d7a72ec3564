"""Attention over a paged cache: blocks are read where they lie.

torch's own attention wants each row's keys in one piece, so every step would copy the cache of every row first.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from services.llm.cpu.numbers import MATHS, exp, number
from services.llm.cpu.tile import LANES, tile_1x1, tile_1x2


# Without NaN the search is vectorised; where there is one it may be missed, but what is subtracted from it stays NaN.
@numba.njit(nogil=True, cache=True, fastmath=MATHS | {"nnan"}, error_model="numpy")
def _largest(values: Any, count: int) -> Any:
    largest = values[0]
    for i in range(1, count):
        largest = max(largest, values[i])
    return largest


@numba.njit(nogil=True, cache=True, fastmath=MATHS, error_model="numpy")
def attend_one(q: Any, keys: Any, values: Any, table: Any, length: int, scores: Any, out: Any) -> None:
    """Softmax attention of one query over the first `length` positions of one row.

    Block by block and in each all heads, as they lie in memory, which is what limits it.

    Args:
        q, out: [heads, dim], contiguous.
        keys: [blocks, kv_heads, dim, 16], values: [blocks, kv_heads, 16, dim]; of q's type, or bfloat16 as uint16.
        table: int32, the row's blocks in order.
        scores: [heads, at least `length` rounded up to whole blocks], to write in.
    """
    kv_heads, dim = keys.shape[1], keys.shape[2]
    heads, size, width = q.shape[0], dim * LANES, scores.shape[1]
    scale = q.dtype.type(1.0 / math.sqrt(dim))
    flat_q, flat_out, weights = q.reshape(-1), out.reshape(-1), scores.reshape(-1)
    flat_k, flat_v = keys.reshape(-1), values.reshape(-1)
    count = (length + LANES - 1) // LANES
    for i in range(count):
        for head in range(heads):
            block = (table[i] * kv_heads + head * kv_heads // heads) * size
            tile_1x1(
                flat_q, head * dim, 0, flat_k, block, LANES, 0, weights, head * width + i * LANES, 0, dim, 0
            )
    for head in range(heads):
        _soften(scores[head], length, scale)
    for i in range(count):
        for head in range(heads):
            block = (table[i] * kv_heads + head * kv_heads // heads) * size
            n = min(LANES, length - i * LANES)
            _gather(weights, head * width + i * LANES, n, flat_v, block, dim, flat_out, head * dim, i > 0)


@numba.njit(nogil=True, cache=True, fastmath=MATHS, error_model="numpy")
def _soften(scores: Any, length: int, scale: Any) -> None:
    """Softmax of the first `length` scores times `scale`, in place."""
    top = _largest(scores, length)
    total = scores.dtype.type(0)
    for t in range(length):
        weight = exp((scores[t] - top) * scale)
        scores[t] = weight
        total += weight
    share = scores.dtype.type(1) / total
    for t in range(length):
        scores[t] *= share


@numba.njit(nogil=True, cache=True, fastmath=MATHS, error_model="numpy")
def _gather(
    weights: Any, place: int, n: int, values: Any, block: int, dim: int, out: Any, at: int, more: bool
) -> None:
    """Sum of n values [n, dim] at `block` by the weights at `place` into out[at : at + dim], or added there."""
    v = 0
    while v + 2 * LANES <= dim:
        tile_1x2(weights, place, 0, values, block + v, dim, LANES, out, at + v, 0, n, int(more))
        v += 2 * LANES
    if v + LANES <= dim:
        tile_1x1(weights, place, 0, values, block + v, dim, LANES, out, at + v, 0, n, int(more))
        v += LANES
    for d in range(v, dim):
        total = out[at + d] if more else out.dtype.type(0)
        for t in range(n):
            total += weights[place + t] * number(values[block + t * dim + d])
        out[at + d] = total


@numba.njit(nogil=True, cache=True, error_model="numpy")
def attend(
    q: Any, keys: Any, values: Any, tables: Any, rows: Any, positions: Any, out: Any, first: int, last: int
) -> None:
    """Attention of the tokens `first` to `last`, each over its row up to itself.

    Args:
        q, out: [N, heads, dim], float32 or float64, contiguous.
        keys, values: a layer's cache, as `KVCache` has it; of the same type, or bfloat16 as uint16.
        tables: int32 [rows, blocks of a row], the blocks of each row in order.
        rows, positions: int64 [N]; token n sees positions 0…positions[n] of row rows[n].
    """
    scores = np.empty((q.shape[1], tables.shape[1] * LANES), q.dtype)
    for n in range(first, last):
        attend_one(q[n], keys, values, tables[rows[n]], positions[n] + 1, scores, out[n])


@numba.njit(nogil=True, cache=True, error_model="numpy")
def store(k: Any, v: Any, keys: Any, values: Any, tables: Any, rows: Any, positions: Any) -> None:
    """Write k and v, [N, kv_heads, dim], at their rows' positions; all of one element type."""
    for n in range(len(rows)):
        b, o = tables[rows[n], positions[n] // LANES], positions[n] % LANES
        for h in range(keys.shape[1]):
            for d in range(keys.shape[2]):
                keys[b, h, d, o] = k[n, h, d]
                values[b, h, o, d] = v[n, h, d]
