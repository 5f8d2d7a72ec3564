"""From a picture of any size to the encoder's input, step by step as the model was trained.

Alpha on white; LANCZOS until the short side is the model's; the centre square; x / 255 · 2 − 1. Codes are equal
to the reference's only if every rounding is, so none of the steps may be reordered or joined.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BAND_ROWS = 256
SCALE: NDArray[np.float32] = (np.arange(256) / 255.0 * 2.0 - 1.0).astype(np.float32)
"""Value of each grey level, rounded once from float64."""
ALPHA = np.arange(256)[:, None] / 255.0
BLEND: NDArray[np.uint8] = ((1.0 - ALPHA) * 255.0 + ALPHA * np.arange(256.0)).astype(np.uint8)
"""Grey level on white by [alpha, grey level]."""


def to_square(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """uint8 [H,W,3] or [H,W,4] → uint8 [side,side,3]."""
    image = Image.fromarray(on_white(pixels))
    scale = side / min(image.size)
    width, height = (round(scale * edge) for edge in image.size)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(resized.crop((left, top, left + side, top + side)))


def to_input(squares: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """N squares uint8 [S,S,3] → float32 [N,3,S,S] in [-1, 1]."""
    return np.ascontiguousarray(SCALE[np.stack(squares)].transpose(0, 3, 1, 2))


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Alpha blended on white and cut off to whole grey levels; uint8 [H,W,3 or 4] → [H,W,3]."""
    if pixels.shape[2] == 3:
        return pixels
    blended = np.empty((*pixels.shape[:2], 3), np.uint8)
    for top in range(0, len(pixels), BAND_ROWS):
        band = pixels[top : top + BAND_ROWS]
        blended[top : top + BAND_ROWS] = BLEND[band[..., 3:], band[..., :3]]
    return blended
