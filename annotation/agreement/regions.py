"""Agreement of marked regions: intersection over union, and one region matched to at most one other."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from annotation.core import Region
from services.errors import InvalidImage

MAX_MASK_PIXELS = 50_000_000


def iou(first: Region, second: Region) -> float:
    """Shared area over covered area, 0 to 1; 0 for two empty regions. A rectangle is drawn on the other's mask.

    Raises:
        InvalidImage: a mask is no PNG, is over MAX_MASK_PIXELS, or the two are of different sizes.
    """
    if first.mask is None and second.mask is None:
        return _of_rectangles(first, second)
    masks = [_pixels(region) if region.mask is not None else None for region in (first, second)]
    shape = next(mask.shape for mask in masks if mask is not None)
    a, b = (
        mask if mask is not None else _drawn(region, shape)
        for mask, region in zip(masks, (first, second), strict=True)
    )
    if a.shape != b.shape:
        raise InvalidImage("masks of one picture must be of its size", field="regions.mask")
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def matched(first: Sequence[Region], second: Sequence[Region], threshold: float) -> int:
    """Pairs of regions of the same picture and label with an IoU of at least `threshold`, as many as can be made."""
    from scipy.optimize import linear_sum_assignment

    if not first or not second:
        return 0
    table = np.array(
        [
            [(a.picture, a.label) == (b.picture, b.label) and iou(a, b) >= threshold for b in second]
            for a in first
        ],
        dtype=np.int64,
    )
    rows, columns = linear_sum_assignment(table, maximize=True)
    return int(table[rows, columns].sum())


def _of_rectangles(a: Region, b: Region) -> float:
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    shared = max(width, 0.0) * max(height, 0.0)
    union = a.width * a.height + b.width * b.height - shared
    return shared / union if union > 0 else 0.0


def _pixels(region: Region) -> NDArray[np.bool_]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(region.mask or b""), formats=("PNG",)) as picture:
            if picture.width * picture.height > MAX_MASK_PIXELS:
                raise InvalidImage(f"at most {MAX_MASK_PIXELS:,} pixels", field="regions.mask")
            return np.asarray(picture.convert("L")) >= 128
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise InvalidImage("must be a PNG", field="regions.mask") from None


def _drawn(region: Region, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels whose middle is inside."""
    rows, columns = ((np.arange(length) + 0.5) / length for length in shape)
    inside_y = (rows >= region.y) & (rows < region.y + region.height)
    inside_x = (columns >= region.x) & (columns < region.x + region.width)
    return np.outer(inside_y, inside_x).astype(np.bool_)
