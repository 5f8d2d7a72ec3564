"""Measuring that all modalities share: smoothing, regions, and the body's own coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from evaluation.phantoms.core import SIZE, Field, Mask

SMALL_OR_LARGE = 11.5
"""Radius in pixels between a small and a large finding."""


@dataclass(frozen=True)
class Region:
    """A connected region: its pixels, their number, and their centre in picture coordinates -1…1."""

    mask: Mask
    area: int
    x: float
    y: float

    @property
    def radius(self) -> float:
        """Radius in pixels of the disc with the same area."""
        return float(np.sqrt(self.area / np.pi))

    @property
    def size(self) -> str:
        return "large" if self.radius > SMALL_OR_LARGE else "small"


def axes() -> tuple[Field, Field]:
    """Picture coordinates x, y of every pixel, float32 [SIZE, SIZE], -1…1."""
    return _axes()


@lru_cache(maxsize=1)
def _axes() -> tuple[Field, Field]:
    line = ((np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE) * 2 - 1
    x, y = np.meshgrid(line, line)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def smooth(field: Field, sigma: float) -> Field:
    """Gaussian smoothing; a third axis (colour) is left alone."""
    widths = (sigma, sigma, 0) if field.ndim == 3 else sigma
    return np.asarray(ndimage.gaussian_filter(field, widths, truncate=3))


def opened(mask: Mask, radius: float) -> Mask:
    """`mask` without its parts thinner than twice `radius` pixels."""
    padded = np.pad(mask, 1)
    core = ndimage.distance_transform_edt(padded) > radius
    if not core.any():
        return np.zeros_like(mask)
    near = ndimage.distance_transform_edt(~core) <= radius
    return np.asarray((near & padded)[1:-1, 1:-1])


def regions(mask: Mask, least: float = 1) -> list[Region]:
    """Connected regions of at least `least` pixels, largest first."""
    labels, count = ndimage.label(mask)
    if not count:
        return []
    areas = np.bincount(labels.ravel())
    x, y = _axes()
    found = []
    for index in range(1, count + 1):
        if areas[index] >= least:
            part = labels == index
            found.append(Region(part, int(areas[index]), float(x[part].mean()), float(y[part].mean())))
    return sorted(found, key=lambda region: -region.area)


def side(x: float) -> str:
    """The patient's side at body coordinate `x`: the patient's left is on the right of the picture."""
    return "left" if x > 0 else "right"


class Body:
    """Coordinates of an upright or lying body found from its outline: centred, turned straight.

    `x`, `y` are float32 [SIZE, SIZE] with the unit of picture coordinates; `width` and `height` are
    half axes of the outline's ellipse; `rho` is 1 on that ellipse.
    """

    def __init__(self, mask: Mask, upright: bool):
        px, py = _axes()
        if not mask.any():
            mask = np.ones_like(mask)
        mx, my = px[mask], py[mask]
        self.centre = float(mx.mean()), float(my.mean())
        dx, dy = mx - self.centre[0], my - self.centre[1]
        xx, yy, xy = float((dx * dx).mean()), float((dy * dy).mean()), float((dx * dy).mean())
        angle = 0.5 * np.arctan2(2 * xy, xx - yy)
        if upright:
            angle -= np.pi / 2 * np.sign(angle)
        angle = float(np.clip(angle, -0.15, 0.15))
        cos, sin = np.cos(angle), np.sin(angle)
        self.x: Field = cos * (px - self.centre[0]) + sin * (py - self.centre[1])
        self.y: Field = -sin * (px - self.centre[0]) + cos * (py - self.centre[1])
        ux, uy = self.x[mask], self.y[mask]
        self.width = 2 * float(np.sqrt((ux * ux).mean())) + 1e-6
        self.height = 2 * float(np.sqrt((uy * uy).mean())) + 1e-6
        self.rho: Field = np.hypot(self.x / self.width, self.y / self.height)

    def at(self, region: Region) -> tuple[float, float]:
        """Centre of a region in the body's coordinates."""
        return float(self.x[region.mask].mean()), float(self.y[region.mask].mean())
