"""Brush strokes: Label Studio's run-length code of RGBA pixels, to masks.

The code is a bit string, most significant bit first: 32 bits number of words, 5 bits word length - 1, four times
4 bits run-field length - 1; then runs: 1 bit repeat, 2 bits which run-field length, that many bits run length - 1,
then one word (repeat) or run-length words. Words are pixels' channels, row by row, red, green, blue, alpha; the
mask is alpha. Source: @thi.ng/rle-pack, which Label Studio's editor uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.errors import InvalidInput

MAX_PIXELS = 16_000_000
Mask = NDArray[np.bool_]


def decode(code: Sequence[int], width: int, height: int) -> Mask:
    """The mask of a stroke.

    Args:
        code: bytes as integers of 0 to 255.
        width, height: of the picture in pixels.

    Returns:
        bool [height, width], true where painted (alpha of 128 and more).

    Raises:
        InvalidInput: damaged, or of another size than the picture's. The message holds no value of the code.
    """
    if not 0 < width * height <= MAX_PIXELS or width < 0:
        raise InvalidInput(f"a picture of 1 to {MAX_PIXELS} pixels is needed", field="original_width")
    try:
        data = np.array(code, np.uint8) if len(code) <= 8 * width * height + 64 else None
    except (OverflowError, TypeError, ValueError):
        data = None
    if data is None or data.ndim != 1:
        raise _damaged()
    channels = _words(np.unpackbits(data), 4 * width * height)
    return channels.reshape(height, width, 4)[..., 3] >= 128


def _words(bits: NDArray[np.uint8], expected: int) -> NDArray[np.uint8]:
    """uint8 [expected]: the words behind the code's bits."""
    at = 0

    def number(length: int) -> int:
        nonlocal at
        if at + length > len(bits):
            raise _damaged()
        value = 0
        for bit in bits[at : at + length].tolist():
            value = value << 1 | bit
        at += length
        return value

    if number(32) != expected:
        raise InvalidInput("the stroke is not of the picture's size", field="rle")
    size = number(5) + 1
    lengths = [number(4) + 1 for _ in range(4)]
    if size != 8:
        raise InvalidInput("channels must have 8 bits", field="rle")
    words = np.empty(expected, np.uint8)
    done = 0
    while done < expected:
        repeat = number(1)
        run = number(lengths[number(2)]) + 1
        if done + run > expected:
            raise _damaged()
        if repeat:
            words[done : done + run] = number(size)
        else:
            if at + run * size > len(bits):
                raise _damaged()
            words[done : done + run] = np.packbits(bits[at : at + run * size])
            at += run * size
        done += run
    return words


def _damaged() -> InvalidInput:
    return InvalidInput("the stroke is damaged", field="rle")


def to_png(mask: Mask) -> bytes:
    """8-bit grey PNG, 255 inside."""
    target = BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(target, "PNG", optimize=True)
    return target.getvalue()


def box(mask: Mask) -> tuple[float, float, float, float] | None:
    """x, y, width, height of what is painted, as shares of the picture; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    height, width = mask.shape
    x, y = float(columns[0]) / width, float(rows[0]) / height
    return x, y, float(columns[-1] + 1) / width - x, float(rows[-1] + 1) / height - y
