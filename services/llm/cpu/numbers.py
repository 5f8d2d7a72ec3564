"""Numbers for compiled code: bfloat16 kept as uint16, and an exponential that loops can vectorise."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic, overload

# Sums may be reordered, but NaN stays NaN: the engine finds broken weights by it.
MATHS = {"nsz", "arcp", "contract", "reassoc"}
_EXACT = {"contract"}


@intrinsic
def _float_of(typingctx: Any, bits: Any) -> Any:
    """The float32 whose bits, or in a uint16 whose upper half, are given."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = args[0]
        if signature.args[0] == types.uint16:
            wide = builder.zext(value, ir.IntType(32))
            value = builder.shl(wide, ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(value, ir.FloatType())

    return types.float32(bits), code


@intrinsic
def _bits_of(typingctx: Any, number: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), code


def number(stored: Any) -> Any:
    """A stored element as a number."""
    return stored


@overload(number, inline="always")
def _number_overload(stored):  # type: ignore[no-untyped-def]  # numba compares signatures
    if stored == types.uint16:
        return lambda stored: _float_of(stored)  # type: ignore[call-arg]
    return lambda stored: stored


def keep(array: Any, place: Any, number: Any) -> None:
    """Store a number, rounded to the array's type."""
    array[place] = number


@overload(keep)
def _keep_overload(array, place, number):  # type: ignore[no-untyped-def]
    if array.dtype != types.uint16:

        def as_it_is(array, place, number):  # type: ignore[no-untyped-def]
            array[place] = number

        return as_it_is

    def rounded(array, place, number):  # type: ignore[no-untyped-def]
        bits: Any = _bits_of(np.float32(number))  # type: ignore[call-arg]
        half = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        array[place] = np.uint16(half) if number == number else np.uint16(0x7FC0)

    return rounded


def exp(x: Any) -> Any:
    return math.exp(x)


@overload(exp, inline="always")
def _exp_overload(x):  # type: ignore[no-untyped-def]
    if x != types.float32:
        return lambda x: math.exp(x)
    return lambda x: _exp32(x)


@numba.njit(nogil=True, cache=True, fastmath=_EXACT, error_model="numpy", inline="always")
def _exp32(x: Any) -> Any:
    """e to the x, float32, to 2 units in the last place from -87 to 88 and held there beyond; loops over it are vectorised.

    2^n times a polynomial in the rest, as in Cephes' expf.
    """
    f = np.float32
    held = min(max(x, f(-87.0)), f(88.0))
    n = np.floor(held * f(1.44269504) + f(0.5))
    r = held - n * f(0.693359375) - n * f(-2.12194440e-4)
    p = f(1.9875691500e-4)
    p = p * r + f(1.3981999507e-3)
    p = p * r + f(8.3334519073e-3)
    p = p * r + f(4.1665795894e-2)
    p = p * r + f(1.6666665459e-1)
    p = p * r + f(5.0000001201e-1)
    p = p * r * r + r + f(1.0)
    # x - x is 0, or what is not a number.
    return p * _float_of(np.int32((np.int32(n) + 127) << 23)) + (x - x)  # type: ignore[call-arg]
