"""What lies between two matrix products, as Triton kernels. A kernel's rows beyond `count` are padding.

Numbers are rounded to the weights' type where `runner.Runner` rounds them; sums are taken in `WIDE`.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rms(x, WEIGHT, offsets, inside, width, eps, WIDE: tl.constexpr, NARROW: tl.constexpr):
    """RMSNorm of one row x [BLOCK], of which `width` numbers count."""
    wide = x.to(WIDE)
    scale = 1 / tl.sqrt(tl.sum(wide * wide, 0) / width + eps)
    weight = tl.load(WEIGHT + offsets, mask=inside, other=0.0).to(WIDE)
    return ((wide * scale).to(NARROW).to(WIDE) * weight).to(NARROW)


@triton.jit
def add_norm(X, Y, WEIGHT, OUT, width, eps, ADD: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """X += Y where ADD, then OUT = RMSNorm(X); all [N, width], one row a program."""
    row, offsets = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside, places = offsets < width, row * width + offsets
    x = tl.load(X + places, mask=inside, other=0.0)
    if ADD:
        x = (x.to(WIDE) + tl.load(Y + places, mask=inside, other=0.0).to(WIDE)).to(X.dtype.element_ty)
        tl.store(X + places, x, mask=inside)
    out = rms(x, WEIGHT, offsets, inside, width, eps, WIDE, OUT.dtype.element_ty)
    tl.store(OUT + places, out, mask=inside)


@triton.jit
def norm_add(X, Y, WEIGHT, width, eps, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """X += RMSNorm(Y): the residual stream of models with `swin_norm`."""
    row, offsets = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside, places = offsets < width, row * width + offsets
    y = tl.load(Y + places, mask=inside, other=0.0)
    narrow = X.dtype.element_ty
    normed = rms(y, WEIGHT, offsets, inside, width, eps, WIDE, narrow)
    x = tl.load(X + places, mask=inside, other=0.0).to(WIDE) + normed.to(WIDE)
    tl.store(X + places, x.to(narrow), mask=inside)


@triton.jit
def gate(GATE_UP, OUT, width, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """OUT [N, width] = silu(gate) · up of GATE_UP [N, 2 · width], gates first."""
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, narrow = offsets < width, OUT.dtype.element_ty
    g = tl.load(GATE_UP + row * 2 * width + offsets, mask=inside, other=0.0).to(WIDE)
    up = tl.load(GATE_UP + row * 2 * width + width + offsets, mask=inside, other=0.0).to(WIDE)
    gated = (g / (1 + tl.exp(-g))).to(narrow).to(WIDE) * up
    tl.store(OUT + row * width + offsets, gated.to(narrow), mask=inside)


@triton.jit
def turnable(x, NORM, BIAS, NARROW: tl.constexpr, WIDE: tl.constexpr):
    """A half of a head's normed numbers under the head's own weight and bias."""
    scaled = x.to(NARROW).to(WIDE) * tl.load(NORM).to(WIDE)
    return (tl.load(BIAS).to(WIDE) + scaled).to(NARROW).to(WIDE)


@triton.jit
def turned(x, other, COS, SIN, angles, NARROW: tl.constexpr, WIDE: tl.constexpr):
    """One half of a head's numbers turned by the angles of its position."""
    cos, sin = tl.load(COS + angles).to(NARROW).to(WIDE), tl.load(SIN + angles).to(NARROW).to(WIDE)
    return ((x * cos).to(NARROW).to(WIDE) + other * sin).to(NARROW)


@triton.jit
def place(HEADS, NORM, BIAS, COS, SIN, Q, KEYS, VALUES, ROWS, POSITIONS, TABLES, COUNT,
          heads, kv_heads, table_width,
          WIDE: tl.constexpr, HALF: tl.constexpr, PAGE: tl.constexpr):  # fmt: skip
    """Norm and turn a token's queries and keys; put keys and values where the cache has them. One head a program.

    HEADS [N, heads + 2 · kv_heads, 2 · HALF] are the projections; Q [N, heads, 2 · HALF]; the cache's arrays as `KVCache`
    has one layer of them. COS and SIN are `model.Rotary`'s, the sign of rotate-half in the sine.
    """
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if token >= tl.load(COUNT):
        return
    narrow = HEADS.dtype.element_ty
    first = tl.arange(0, HALF)
    second = first + HALF
    source = HEADS + (token * (heads + 2 * kv_heads) + head) * 2 * HALF
    low, high = tl.load(source + first), tl.load(source + second)
    position, row = tl.load(POSITIONS + token), tl.load(ROWS + token)
    page = tl.load(TABLES + row * table_width + position // PAGE).to(tl.int64)
    inside = position % PAGE
    if head < heads + kv_heads:
        a, b = low.to(WIDE), high.to(WIDE)
        mean = (tl.sum(a, 0) + tl.sum(b, 0)) / (2 * HALF)
        a, b = a - mean, b - mean
        scale = 1 / tl.sqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / (2 * HALF) + 1e-5)
        norms, biases = NORM + head * 2 * HALF, BIAS + head * 2 * HALF
        a = turnable(a * scale, norms + first, biases + first, narrow, WIDE)
        b = turnable(b * scale, norms + second, biases + second, narrow, WIDE)
        low = turned(a, b, COS, SIN, position * 2 * HALF + first, narrow, WIDE)
        high = turned(b, a, COS, SIN, position * 2 * HALF + second, narrow, WIDE)
    if head < heads:
        target = Q + (token * heads + head) * 2 * HALF
        tl.store(target + first, low)
        tl.store(target + second, high)
    elif head < heads + kv_heads:
        target = KEYS + (page * kv_heads + head - heads) * 2 * HALF * PAGE + inside
        tl.store(target + first * PAGE, low)
        tl.store(target + second * PAGE, high)
    else:
        target = VALUES + ((page * kv_heads + head - heads - kv_heads) * PAGE + inside) * 2 * HALF
        tl.store(target + first, low)
        tl.store(target + second, high)


@triton.jit
def attend(Q, KEYS, VALUES, ROWS, POSITIONS, TABLES, COUNT, MOST, TOTAL, MIXED,
           heads, kv_heads, table_width, parts, scale,
           WIDE: tl.constexpr, DIM: tl.constexpr, PAGE: tl.constexpr, PART: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    """A token's attention over one part of its row, PART positions of it; a program a token, head and part.

    Leaves the largest score and the sum of weights in MOST and TOTAL [N, heads, parts], the weighted values in MIXED
    [N, heads, parts, DIM]; `merge` puts the parts together. Parts that begin beyond the token's position are not written.
    """
    token, head, part = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    if token >= tl.load(COUNT):
        return
    length = tl.load(POSITIONS + token) + 1
    begin = part * PART
    if begin >= length:
        return
    table = TABLES + tl.load(ROWS + token) * table_width
    group = head // (heads // kv_heads)
    dims, within = tl.arange(0, DIM), tl.arange(0, TILE)
    q = tl.load(Q + (token * heads + head) * DIM + dims).to(WIDE) * scale
    most, total = tl.full((), float("-inf"), WIDE), tl.full((), 0.0, WIDE)
    mixed = tl.zeros((DIM,), WIDE)
    for start in range(begin, tl.minimum(begin + PART, length), TILE):
        positions = start + within
        known = positions < length
        page = tl.load(table + positions // PAGE, mask=known, other=0).to(tl.int64) * kv_heads + group
        inside = positions % PAGE
        k = tl.load(
            KEYS + (page * DIM * PAGE + inside)[:, None] + dims[None, :] * PAGE,
            mask=known[:, None],
            other=0.0,
        )
        scores = tl.where(known, tl.sum(k.to(WIDE) * q[None, :], 1), float("-inf"))
        higher = tl.maximum(most, tl.max(scores, 0))
        weights, kept = tl.exp(scores - higher), tl.exp(most - higher)
        v = tl.load(
            VALUES + ((page * PAGE + inside) * DIM)[:, None] + dims[None, :], mask=known[:, None], other=0.0
        )
        mixed = mixed * kept + tl.sum(v.to(WIDE) * weights[:, None], 0)
        total = total * kept + tl.sum(weights, 0)
        most = higher
    place = (token * heads + head) * parts + part
    tl.store(MOST + place, most)
    tl.store(TOTAL + place, total)
    tl.store(MIXED + place * DIM + dims, mixed)


@triton.jit
def merge(MOST, TOTAL, MIXED, POSITIONS, COUNT, OUT, heads, parts,
          DIM: tl.constexpr, PART: tl.constexpr, PARTS: tl.constexpr):  # fmt: skip
    """OUT [N, heads · DIM] from `attend`'s parts; a program a token and head. PARTS: `parts` up to a power of two."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if token >= tl.load(COUNT):
        return
    part, dims = tl.arange(0, PARTS), tl.arange(0, DIM)
    written = (part < parts) & (part * PART <= tl.load(POSITIONS + token))
    places = (token * heads + head) * parts + part
    most = tl.load(MOST + places, mask=written, other=float("-inf"))
    weights = tl.exp(most - tl.max(most, 0))
    total = tl.sum(tl.load(TOTAL + places, mask=written, other=0.0) * weights, 0)
    mixed = tl.load(MIXED + places[:, None] * DIM + dims[None, :], mask=written[:, None], other=0.0)
    out = tl.sum(mixed * weights[:, None], 0) / total
    tl.store(OUT + (token * heads + head) * DIM + dims, out.to(OUT.dtype.element_ty))
