"""Products of few rows with a weight matrix."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from services.llm.cpu.tile import LANES, tile_1x2, tile_2x2, tile_4x2


def panels(matrix: NDArray[Any]) -> NDArray[Any]:
    """[K, N] → [P, K, 16], contiguous, filled up with zeros: how `product` reads a matrix, two panels at a time."""
    depth, width = matrix.shape
    count = -(-width // (2 * LANES)) * 2
    padded = np.zeros((depth, count * LANES), matrix.dtype)
    padded[:, :width] = matrix
    return np.ascontiguousarray(padded.reshape(depth, count, LANES).transpose(1, 0, 2))


@numba.njit(nogil=True, cache=True, error_model="numpy")
def adapt(x: Any, rows: Any, owners: Any, a: Any, b: Any, out: Any) -> None:
    """Add x @ a @ b to the first `rows` rows of out, each by its adapter's a and b; owner 0 = none, 1 the first.

    a [adapters, P, K, 16] and b [adapters, Q, 16 · P, 16], as `panels` lays them out; x and out as in `product`.
    """
    depth, inner, width = a.shape[2], b.shape[2], out.shape[1]
    between = np.empty(inner, x.dtype)
    flat, o = x.reshape(-1), out.reshape(-1)
    for i in range(rows):
        which = owners[i] - 1
        if which < 0:
            continue
        down, up = a[which].reshape(-1), b[which].reshape(-1)
        for p in range(0, a.shape[1], 2):
            at, step = p * depth * LANES, depth * LANES
            tile_1x2(flat, i * depth, depth, down, at, LANES, step, between, p * LANES, inner, depth, 0)
        for p in range(0, b.shape[1], 2):
            at, step, place = p * inner * LANES, inner * LANES, i * width + p * LANES
            tile_1x2(between, 0, inner, up, at, LANES, step, o, place, width, inner, 1)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def product(x: Any, rows: Any, weights: Any, out: Any) -> None:
    """The first `rows` rows of x [M, K] @ weights, into out [M, at least 16 · P]; both contiguous.

    weights: [P, K, 16] as `panels` lays them out, of x's type, or bfloat16 as uint16.
    """
    count, depth = weights.shape[0], weights.shape[1]
    step, width = depth * LANES, out.shape[1]
    a, w, o = x.reshape(-1), weights.reshape(-1), out.reshape(-1)
    for p in range(0, count, 2):
        at, i = p * step, 0
        while i + 4 <= rows:
            tile_4x2(a, i * depth, depth, w, at, LANES, step, o, i * width + p * LANES, width, depth, 0)
            i += 4
        if i + 2 <= rows:
            tile_2x2(a, i * depth, depth, w, at, LANES, step, o, i * width + p * LANES, width, depth, 0)
            i += 2
        if i < rows:
            tile_1x2(a, i * depth, depth, w, at, LANES, step, o, i * width + p * LANES, width, depth, 0)
