"""The layers of the model in one piece: products, norms, rotation, the cache and attention."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from services.llm.cpu.attention import attend_one
from services.llm.cpu.numbers import MATHS, exp, keep
from services.llm.cpu.product import adapt, product
from services.llm.cpu.tile import LANES

_TOKENS = 48  # read at a time: what lies between two products stays in the processor's own cache


@numba.njit(nogil=True, cache=True, fastmath=MATHS, error_model="numpy")
def _normed(x: Any, rows: int, size: int, weight: Any, eps: float, out: Any) -> None:
    """RMS norm of the first `size` columns of `rows` rows, into `out`."""
    for i in range(rows):
        squares = x.dtype.type(0)
        for d in range(size):
            squares += x[i, d] * x[i, d]
        scale = x.dtype.type(1.0 / math.sqrt(squares / x.dtype.type(size) + x.dtype.type(eps)))
        for d in range(size):
            out[i, d] = x[i, d] * scale * weight[d]


@numba.njit(nogil=True, cache=True, fastmath=MATHS, error_model="numpy")
def _place_heads(
    fused: Any, norm: Any, bias: Any, cos: Any, sin: Any, q: Any, keys: Any, values: Any, b: int, o: int
) -> None:
    """One token's q, k and v: norms of the heads, rotation; q into q [heads, dim], k and v into block b at o.

    cos, sin: [dim / 2] at the token's position.
    """
    kv_heads, dim = keys.shape[1], keys.shape[2]
    heads, half = q.shape[0], keys.shape[2] // 2
    one = fused.dtype.type(1)
    for head in range(heads + kv_heads):
        at = head * dim
        mean = fused.dtype.type(0)
        for d in range(dim):
            mean += fused[at + d]
        mean /= fused.dtype.type(dim)
        spread = fused.dtype.type(0)
        for d in range(dim):
            spread += (fused[at + d] - mean) * (fused[at + d] - mean)
        scale = one / fused.dtype.type(math.sqrt(spread / fused.dtype.type(dim) + fused.dtype.type(1e-5)))
        for d in range(dim):
            fused[at + d] = (fused[at + d] - mean) * scale * norm[head, d] + bias[head, d]
        if head < heads:
            for d in range(half):
                low, high = fused[at + d], fused[at + half + d]
                q[head, d] = low * cos[d] - high * sin[d]
                q[head, half + d] = high * cos[d] + low * sin[d]
        else:
            h = head - heads
            for d in range(half):
                low, high = fused[at + d], fused[at + half + d]
                keep(keys, (b, h, d, o), low * cos[d] - high * sin[d])
                keep(keys, (b, h, half + d, o), high * cos[d] + low * sin[d])
            at = (head + kv_heads) * dim
            for d in range(dim):
                keep(values, (b, h, o, d), fused[at + d])


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _before(
    layer: int, weights: Any, cache: Any, where: Any, x: Any, q: Any, adapters: Any, first: int, last: int
) -> None:
    """A layer up to attention for the tokens `first` to `last`: q, and k and v in the cache."""
    qkv, _, _, _, head_norm, head_bias, input_norm, _, cos, sin, eps, swin = weights
    keys, values = cache
    tables, rows, positions = where
    size = qkv.shape[2]
    normed = np.empty((_TOKENS, size), x.dtype)
    fused = np.empty((_TOKENS, qkv.shape[1] * LANES), x.dtype)
    for start in range(first, last, _TOKENS):
        count = min(_TOKENS, last - start)
        part = x[start : start + count]
        if swin:
            normed[:count] = part
        else:
            _normed(part, count, size, input_norm[layer], eps, normed)
        product(normed, count, qkv[layer], fused)
        if adapters is not None:
            adapt(normed, count, adapters[0][start:], adapters[1][layer], adapters[2][layer], fused)
        for i in range(count):
            n = start + i
            at = positions[n]
            block = tables[rows[n], at // LANES]
            _place_heads(
                fused[i],
                head_norm[layer],
                head_bias[layer],
                cos[at],
                sin[at],
                q[n],
                keys[layer],
                values[layer],
                block,
                at % LANES,
            )


@numba.njit(nogil=True, cache=True, fastmath=MATHS, error_model="numpy")
def _gated(gates: Any, rows: int, size: int, out: Any) -> None:
    """SiLU of the first `size` columns times the next `size`."""
    one = gates.dtype.type(1)
    for i in range(rows):
        for d in range(size):
            out[i, d] = gates[i, d] / (one + exp(-gates[i, d])) * gates[i, size + d]


@numba.njit(nogil=True, cache=True, fastmath=MATHS, error_model="numpy")
def _add(x: Any, first: int, rows: int, size: int, more: Any) -> None:
    for i in range(rows):
        for d in range(size):
            x[first + i, d] += more[i, d]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _after(
    layer: int, weights: Any, cache: Any, where: Any, x: Any, q: Any, adapters: Any, first: int, last: int
) -> None:
    """The rest of a layer for the tokens `first` to `last`: x with attention's and the feed-forward block's output added."""
    _, out, gate_up, down, _, _, input_norm, post_norm, _, _, eps, swin = weights
    keys, values = cache
    tables, rows, positions = where
    size, inner = x.shape[1], down.shape[2]
    wide = out.shape[1] * LANES
    mixed = np.empty((_TOKENS, q.shape[1], q.shape[2]), x.dtype)
    more = np.empty((_TOKENS, wide), x.dtype)
    normed = np.empty((_TOKENS, size), x.dtype)
    gates = np.empty((_TOKENS, gate_up.shape[1] * LANES), x.dtype)
    fed = np.empty((_TOKENS, inner), x.dtype)
    scores = np.empty((q.shape[1], tables.shape[1] * LANES), x.dtype)
    for start in range(first, last, _TOKENS):
        count = min(_TOKENS, last - start)
        for i in range(count):
            n = start + i
            attend_one(q[n], keys[layer], values[layer], tables[rows[n]], positions[n] + 1, scores, mixed[i])
        product(mixed.reshape(_TOKENS, -1), count, out[layer], more)
        if adapters is not None:
            whose = adapters[0][start:]
            adapt(mixed.reshape(_TOKENS, -1), count, whose, adapters[3][layer], adapters[4][layer], more)
        if swin:
            _normed(more, count, size, input_norm[layer], eps, more)
        _add(x, start, count, size, more)
        if swin:
            normed[:count] = x[start : start + count]
        else:
            _normed(x[start : start + count], count, size, post_norm[layer], eps, normed)
        product(normed, count, gate_up[layer], gates)
        if adapters is not None:
            adapt(normed, count, adapters[0][start:], adapters[5][layer], adapters[6][layer], gates)
        _gated(gates, count, inner, fed)
        product(fed, count, down[layer], more)
        if adapters is not None:
            adapt(fed, count, adapters[0][start:], adapters[7][layer], adapters[8][layer], more)
        if swin:
            _normed(more, count, size, post_norm[layer], eps, more)
        _add(x, start, count, size, more)


BEFORE, AFTER, WHOLE = 1, 2, 3
"""Parts of a layer: up to attention, from attention on, both."""


@numba.njit(nogil=True, cache=True, error_model="numpy")
def read(
    weights: Any,
    cache: Any,
    where: Any,
    x: Any,
    q: Any,
    adapters: Any,
    first: int,
    last: int,
    layer: int,
    end: int,
    part: int,
) -> None:
    """Layers `layer` to `end` for the tokens `first` to `last`, whose rows no other thread reads, or one part of one layer.

    Args:
        weights: (qkv, out, gate_up, down) as [layers, P, K, 16], head norm and bias [layers, heads + kv_heads, dim], norms before
            attention and feed-forward [layers, hidden], cosines and sines [context, dim / 2], epsilon, and whether the
            norms come after (Swin).
        cache: keys and values, as `KVCache` has them.
        where: tables, rows and positions, as in `attend`.
        x: [N, hidden], the residual stream, which is advanced.
        q: [N, heads, dim], to write in.
        adapters: each token's adapter (0 = none, 1 the first), then for qkv, out, gate_up and down a and b of all adapters as in
            `adapt`, [layers, …]; None where no token has one: that is compiled apart.
    """
    for index in range(layer, end):
        if part & BEFORE:
            _before(index, weights, cache, where, x, q, adapters, first, last)
        if part & AFTER:
            _after(index, weights, cache, where, x, q, adapters, first, last)
