"""Attention over a paged cache on a CPU: compiled loops that read blocks where they lie.

torch's own attention wants each row's keys in one piece, so every step would copy the cache of every row first.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic, overload

# Sums may be reordered, but NaN stays NaN: the engine finds broken weights by it.
_MATHS = {"nsz", "arcp", "contract", "reassoc"}


@intrinsic
def _bfloat16(typingctx: Any, value: Any) -> Any:
    """The float32 whose upper half is a bfloat16 given as uint16."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from llvmlite import ir  # type: ignore[import-untyped]

        wide = builder.zext(args[0], ir.IntType(32))
        return builder.bitcast(builder.shl(wide, ir.Constant(ir.IntType(32), 16)), ir.FloatType())

    return types.float32(types.uint16), code


def _number(stored: Any) -> Any:
    """A stored element as a number."""
    return stored


@overload(_number)
def _number_overload(stored):  # type: ignore[no-untyped-def]  # numba compares signatures
    if stored == types.uint16:
        return lambda stored: _bfloat16(stored)  # type: ignore[call-arg]
    return lambda stored: stored


@numba.njit(nogil=True, cache=True, fastmath=_MATHS, error_model="numpy")
def attend(
    q: Any, keys: Any, values: Any, tables: Any, rows: Any, positions: Any, out: Any, first: int, last: int
) -> None:
    """Softmax attention of single queries over the blocks of their rows.

    Args:
        q, out: [N, heads, dim], float32 or float64.
        keys, values: [blocks, kv_heads, block, dim], of the same type, or bfloat16 as uint16.
        tables: int32 [rows, blocks of a row], the blocks of each row in order.
        rows, positions: int64 [N]; query n sees positions 0…positions[n] of row rows[n].
        first, last: which of the N · kv_heads pairs (n, key head) to do.
    """
    kv_heads, block, dim = keys.shape[1], keys.shape[2], keys.shape[3]
    group = q.shape[1] // kv_heads
    scale = q.dtype.type(1.0 / math.sqrt(dim))
    weights = np.empty(tables.shape[1] * block, q.dtype)
    for pair in range(first, last):
        n, h = pair // kv_heads, pair % kv_heads
        table, length = tables[rows[n]], positions[n] + 1
        for head in range(h * group, (h + 1) * group):
            top = q.dtype.type(-math.inf)
            for t in range(length):
                b, o = table[t // block], t % block
                dot = q.dtype.type(0)
                for d in range(dim):
                    dot += q[n, head, d] * _number(keys[b, h, o, d])
                weights[t] = dot * scale
                top = max(top, weights[t])
            total = q.dtype.type(0)
            for t in range(length):
                weights[t] = math.exp(weights[t] - top)
                total += weights[t]
            for d in range(dim):
                out[n, head, d] = 0
            # Four at a time: the sum is read and written once for them all. A block holds a multiple of four.
            t = 0
            while t + 4 <= length:
                b, o = table[t // block], t % block
                w0, w1, w2, w3 = weights[t], weights[t + 1], weights[t + 2], weights[t + 3]
                for d in range(dim):
                    out[n, head, d] += (
                        w0 * _number(values[b, h, o, d])
                        + w1 * _number(values[b, h, o + 1, d])
                        + w2 * _number(values[b, h, o + 2, d])
                        + w3 * _number(values[b, h, o + 3, d])
                    )
                t += 4
            while t < length:
                b, o = table[t // block], t % block
                for d in range(dim):
                    out[n, head, d] += weights[t] * _number(values[b, h, o, d])
                t += 1
            for d in range(dim):
                out[n, head, d] /= total


@numba.njit(nogil=True, cache=True)
def store(k: Any, v: Any, keys: Any, values: Any, tables: Any, rows: Any, positions: Any) -> None:
    """Write k and v, [N, kv_heads, dim], at their rows' positions; all of one element type."""
    block = keys.shape[2]
    for n in range(len(rows)):
        b, o = tables[rows[n], positions[n] // block], positions[n] % block
        for h in range(keys.shape[1]):
            for d in range(keys.shape[3]):
                keys[b, h, o, d] = k[n, h, d]
                values[b, h, o, d] = v[n, h, d]
