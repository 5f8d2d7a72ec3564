"""Drawing with coverages: every shape is a field of 0…1 whose edge is soft by about a pixel.

Coordinates run from -1 to 1 over the picture, x to the right and y down, so a radius in pixels is
`px(radius)`. Soft edges stand in for supersampling at a tenth of its cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from evaluation.phantoms.core import SIZE, Field, Mask, Picture

Point = tuple[float, float]


def px(pixels: float) -> float:
    """A length given in pixels of a 96-pixel picture, in coordinates."""
    return pixels / 48


SOFT = px(1.5)
SMALL_RADIUS = (px(7.2), px(8.8))
LARGE_RADIUS = (px(14.5), px(17.0))
SPOT_RADIUS = (px(5.6), px(6.8))
"""Radius of each of several counted spots."""


def radius(size: str | None, rng: np.random.Generator) -> float:
    """Radius of a small or a large finding; the gap between the two ranges keeps them apart."""
    return float(rng.uniform(*(LARGE_RADIUS if size == "large" else SMALL_RADIUS)))


@lru_cache(maxsize=4)
def _axes(size: int) -> tuple[Field, Field]:
    line = ((np.arange(size, dtype=np.float32) + 0.5) / size) * 2 - 1
    x, y = np.meshgrid(line, line)
    x.flags.writeable = y.flags.writeable = False
    return x, y


class Frame:
    """The body's coordinates inside the picture: turned, scaled and shifted a little per phantom.

    `x`, `y` are float32 [SIZE, SIZE]: body coordinates of every pixel.
    """

    def __init__(self, rng: np.random.Generator, turn: float = 4, shift: float = 0.03, scale: float = 0.05):
        self.angle = math.radians(float(rng.uniform(-turn, turn)))
        self.shift = (float(rng.uniform(-shift, shift)), float(rng.uniform(-shift, shift)))
        self.scale = float(rng.uniform(1 - scale, 1 + scale))
        gx, gy = _axes(SIZE)
        dx, dy = gx - self.shift[0], gy - self.shift[1]
        cos, sin = math.cos(self.angle) / self.scale, math.sin(self.angle) / self.scale
        self.x: Field = (cos * dx + sin * dy).astype(np.float32)
        self.y: Field = (-sin * dx + cos * dy).astype(np.float32)

    def ellipse(self, x: float, y: float, a: float, b: float, turn: float = 0, soft: float = SOFT) -> Field:
        """Coverage of an ellipse with half axes a, b, turned by `turn` degrees."""
        dx, dy = self.x - x, self.y - y
        if turn:
            cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            dx, dy = cos * dx + sin * dy, -sin * dx + cos * dy
        distance = np.sqrt((dx / a) ** 2 + (dy / b) ** 2)
        return edge((1 - distance) * min(a, b), soft)

    def disc(self, x: float, y: float, r: float, soft: float = SOFT) -> Field:
        return self.ellipse(x, y, r, r, soft=soft)

    def blob(
        self,
        rng: np.random.Generator,
        x: float,
        y: float,
        r: float,
        wobble: float = 0.08,
        soft: float = SOFT,
        flat: float = 1.0,
    ) -> Field:
        """Coverage of a round shape with an uneven outline; `flat` < 1 squeezes it vertically."""
        dx, dy = self.x - x, (self.y - y) / flat
        angle = np.arctan2(dy, dx)
        outline = np.full_like(angle, r)
        for wave in (2, 3, 5):
            outline += (
                r * wobble * rng.uniform(-1, 1) / math.sqrt(wave) * np.cos(wave * angle + rng.uniform(0, 6.3))
            )
        return edge(outline - np.hypot(dx, dy), soft)


def edge(distance: Field, soft: float = SOFT) -> Field:
    """Coverage from a distance to the outline (positive inside)."""
    return np.clip(distance / soft + 0.5, 0, 1).astype(np.float32)


def paint(image: Field, coverage: Field, value: float | Field) -> None:
    """Lay `value` over `image` (in place) where `coverage` says."""
    image += coverage * (value - image)


def paint_rgb(image: Field, coverage: Field, colour: Sequence[float]) -> None:
    """Lay a colour (three values in 0…1) over `image` float32 [H, W, 3] in place."""
    image += coverage[:, :, None] * (np.asarray(colour, dtype=np.float32) - image)


def clouds(rng: np.random.Generator, cells: int, size: int = SIZE) -> Field:
    """Smooth noise, mean about 0, range about -1…1, with `cells` bumps across the picture."""
    coarse = rng.uniform(-1, 1, (cells + 2, cells + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def grain(rng: np.random.Generator, sigma: float) -> Field:
    """Detector noise per pixel."""
    return rng.standard_normal((SIZE, SIZE), dtype=np.float32) * sigma


def to_picture(image: Field) -> Picture:
    """Grey [H, W] or colour [H, W, 3] in 0…1 → uint8 [H, W, 3]."""
    levels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.repeat(levels[:, :, None], 3, axis=2) if levels.ndim == 2 else levels


def empty_mask() -> Mask:
    return np.zeros((SIZE, SIZE), dtype=np.bool_)


class NoRoom(Exception):
    """A region is too small for what should lie in it."""


def scatter(
    rng: np.random.Generator,
    count: int,
    sample: Callable[[], Point],
    gap: float,
    keep: Callable[[Point], bool] = lambda _: True,
) -> list[Point]:
    """`count` points from `sample` that `keep` accepts, at least `gap` apart.

    Raises NoRoom when the region is too small for them.
    """
    for _ in range(200):
        points: list[Point] = []
        for _ in range(60):
            point = sample()
            if keep(point) and all(math.dist(point, other) >= gap for other in points):
                points.append(point)
                if len(points) == count:
                    return points
    raise NoRoom(f"no room for {count} points {gap} apart")
