"""Films of phantoms as hospitals send them, and what experts mark on them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotation.core import Item, Region, Verdict
from evaluation.phantoms import Phantom

LABELS = ("pleural effusion", "pneumothorax", "mass", "cardiomegaly", "consolidation", "hemorrhage", "lesion")
ENLARGED = 2
"""Pictures are sent as large as this many times the phantom."""
CELL = 16  # pixels: an expert's brush is a coarse one


def chance(*about: object) -> float:
    """A number in [0, 1) that is always the same for the same things."""
    return hashlib.sha256(repr(about).encode()).digest()[0] / 256


def png(phantom: Phantom) -> bytes:
    target = BytesIO()
    picture = Image.fromarray(phantom.picture)
    # As large as what hospitals send: smaller ones are held (annotation/deid/pictures.py).
    size = (picture.width * ENLARGED, picture.height * ENLARGED)
    picture.resize(size, Image.Resampling.LANCZOS).save(target, "PNG")
    return target.getvalue()


def marked(phantom: Phantom) -> tuple[Region, ...]:
    """What an expert marks on some of the films with one finding: with a rectangle in whole percents, or a coarse brush."""
    if len(phantom.findings) != 1 or chance(phantom.seed, "marked") < 0.3:
        return ()
    kind = phantom.findings[0].kind
    label = kind if kind in LABELS else "other finding"
    mask = phantom.mask.repeat(ENLARGED, 0).repeat(ENLARGED, 1)
    brushed = chance(phantom.seed, "brush") < 0.4
    if brushed:
        cells = mask.reshape(len(mask) // CELL, CELL, -1, CELL).any(axis=(1, 3))
        mask = cells.repeat(CELL, 0).repeat(CELL, 1)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) / len(mask) for axis in (1, 0))
    step = 1 / len(mask)
    edges = [columns[0], rows[0], columns[-1] + step, rows[-1] + step]
    if brushed:
        left, top, right, bottom = map(float, edges)
        return (Region("", label, left, top, right - left, bottom - top, _grey(mask)),)
    left, top = (math.floor(100 * edge) for edge in edges[:2])
    right, bottom = (math.ceil(100 * edge) for edge in edges[2:])
    return (Region("", label, left / 100, top / 100, (right - left) / 100, (bottom - top) / 100),)


def _grey(mask: NDArray[np.bool_]) -> bytes:
    target = BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(target, "PNG")
    return target.getvalue()


def inside(mask: bytes) -> NDArray[np.bool_]:
    with Image.open(BytesIO(mask)) as picture:
        return np.asarray(picture) >= 128


def plain(verdict: Verdict) -> Verdict:
    """The verdict as it can be compared: regions without the picture's digest and the noise of floats."""
    regions = tuple(
        replace(
            region,
            picture="",
            mask=np.packbits(inside(region.mask)).tobytes() if region.mask else None,
            **{name: round(getattr(region, name), 6) for name in ("x", "y", "width", "height")},
        )
        for region in verdict.regions
    )
    return replace(verdict, regions=regions)


def about(item: Item, verdict: Verdict) -> Verdict:
    """The verdict with its marks on the item's own picture."""
    if not verdict.regions:
        return verdict
    picture = item.pictures[0].sha256
    return replace(verdict, regions=tuple(replace(each, picture=picture) for each in verdict.regions))
