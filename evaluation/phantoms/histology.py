"""H&E histology: pink stroma with violet nuclei, seen through a microscope."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from evaluation.phantoms.canvas import (
    Frame,
    clouds,
    edge,
    empty_mask,
    grain,
    paint_rgb,
    px,
    radius,
    scatter,
    to_picture,
)
from evaluation.phantoms.core import SIZE, Field, Finding, Kind, Mask, Modality, Picture

MODALITY = Modality(
    id="histology",
    name="H&E histology",
    organ="tissue",
    article="an",
    synonyms=("histology slide", "H&E slide"),
    kinds=(
        Kind(
            "tumor nest", "tumor nests", "A tumor nest is a group of crowded large violet cells.", sized=True
        ),
        Kind(
            "dilated gland",
            "dilated glands",
            "A dilated gland is a wide white space lined by nuclei.",
            counts=(1, 2, 3),
        ),
        Kind(
            "inflammation",
            "inflammation",
            "Inflammation is a crowd of small dark blue cells.",
            article="",
            synonyms=("inflammatory infiltrate",),
        ),
    ),
)

_SCALE = 3
Nucleus = tuple[float, float, float, float, tuple[int, int, int]]
"""x, y, half axes (coordinates), colour."""


def draw(rng: np.random.Generator, findings: Sequence[Finding]) -> tuple[Picture, Mask]:
    """One field of view with exactly these findings, and the mask of their pixels."""
    frame = Frame(rng, turn=180, shift=0, scale=0)
    image = _stroma(rng, frame)
    taken: list[tuple[float, float, float]] = []
    nuclei: list[Nucleus] = []
    mask = empty_mask()
    upright = Frame(rng, turn=0, shift=0, scale=0)
    for finding in findings:
        if finding.kind == "tumor nest":
            mask |= _tumor(rng, upright, image, nuclei, taken, finding)
        elif finding.kind == "inflammation":
            mask |= _inflammation(rng, upright, image, nuclei, taken)
        elif finding.kind == "dilated gland":
            mask |= _glands(rng, upright, image, nuclei, taken, finding)
    for _ in range(int(rng.integers(45, 75))):
        x, y = float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))
        if all(math.hypot(x - cx, y - cy) > r + 0.05 for cx, cy, r in taken):
            nuclei.append((x, y, px(1.7), px(1.1), (105, 62, 140)))
    _stain(rng, image, nuclei)
    image += grain(rng, 0.012)[:, :, None]
    return to_picture(image), mask


def _stroma(rng: np.random.Generator, frame: Frame) -> Field:
    """Wavy collagen fibres with pale gaps."""
    image = np.empty((SIZE, SIZE, 3), dtype=np.float32)
    image[:] = np.asarray((0.92, 0.68 + float(rng.uniform(-0.04, 0.04)), 0.80), dtype=np.float32)
    flow = frame.y * float(rng.uniform(22, 30)) + 3 * clouds(rng, 3) + 1.2 * clouds(rng, 8)
    paint_rgb(image, (0.5 + 0.5 * np.sin(flow)).astype(np.float32) * 0.55, (0.86, 0.50, 0.70))
    paint_rgb(image, edge(np.sin(flow * 0.5 + 1.0) - 0.93, 0.1) * 0.7, (0.97, 0.92, 0.95))
    paint_rgb(image, np.clip(0.4 * clouds(rng, 5), 0, 1), (0.95, 0.60, 0.72))
    return image


def _stain(rng: np.random.Generator, image: Field, nuclei: Sequence[Nucleus]) -> None:
    """Lay all nuclei over `image` in place, drawn at three times the resolution."""
    side = SIZE * _SCALE
    colours = Image.new("RGB", (side, side))
    cover = Image.new("L", (side, side))
    pens = ImageDraw.Draw(colours), ImageDraw.Draw(cover)
    half = side / 2
    for x, y, a, b, colour in nuclei:
        if rng.random() < 0.5:
            a, b = b, a
        shade = int(rng.integers(-14, 14))
        box = [(x - a + 1) * half, (y - b + 1) * half, (x + a + 1) * half, (y + b + 1) * half]
        pens[0].ellipse(box, fill=tuple(level + shade for level in colour))
        pens[1].ellipse(box, fill=255)
    small = np.asarray(colours.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32) / 255
    alpha = np.asarray(cover.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32)[:, :, None] / 255
    image *= 1 - alpha
    image += small


def _crowd(
    rng: np.random.Generator,
    shape: Field,
    pitch: float,
    size: float,
    colour: tuple[int, int, int],
    jitter: float,
) -> list[Nucleus]:
    """Nuclei on a shaken grid of `pitch` wherever `shape` covers."""
    crowd: list[Nucleus] = []
    steps = np.arange(-1, 1, pitch)
    for row, y in enumerate(steps):
        for x in steps + (pitch / 2 if row % 2 else 0):
            px_x = float(x + rng.uniform(-jitter, jitter) * pitch)
            px_y = float(y + rng.uniform(-jitter, jitter) * pitch)
            column, line = int((px_x + 1) / 2 * SIZE), int((px_y + 1) / 2 * SIZE)
            if 0 <= column < SIZE and 0 <= line < SIZE and shape[line, column] > 0.6:
                a, b = size * float(rng.uniform(0.85, 1.2)), size * float(rng.uniform(0.85, 1.2))
                crowd.append((px_x, px_y, a, b, colour))
    return crowd


def _tumor(
    rng: np.random.Generator,
    frame: Frame,
    image: Field,
    nuclei: list[Nucleus],
    taken: list[tuple[float, float, float]],
    finding: Finding,
) -> Mask:
    r = radius(finding.size, rng) * 1.12
    room = 0.9 - r
    x, y = float(rng.uniform(-room, room)), float(rng.uniform(-room, room))
    nest = frame.blob(rng, x, y, r, wobble=0.10)
    paint_rgb(image, frame.disc(x, y, r + 0.07, soft=0.08) * 0.8, (0.97, 0.88, 0.93))
    paint_rgb(image, nest, (0.70, 0.42, 0.72))
    nuclei += _crowd(rng, nest, px(4.6), px(1.75), (98, 40, 128), 0.15)
    taken.append((x, y, r))
    return nest > 0.5


def _inflammation(
    rng: np.random.Generator,
    frame: Frame,
    image: Field,
    nuclei: list[Nucleus],
    taken: list[tuple[float, float, float]],
) -> Mask:
    r = float(rng.uniform(px(17), px(21)))
    x, y = float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.5, 0.5))
    crowd = frame.blob(rng, x, y, r, wobble=0.22, flat=float(rng.uniform(0.75, 1)))
    paint_rgb(image, crowd * 0.75, (0.62, 0.58, 0.82))
    nuclei += _crowd(rng, crowd, px(3.1), px(1.05), (48, 40, 122), 0.25)
    taken.append((x, y, r * 0.8))
    return crowd > 0.5


def _glands(
    rng: np.random.Generator,
    frame: Frame,
    image: Field,
    nuclei: list[Nucleus],
    taken: list[tuple[float, float, float]],
    finding: Finding,
) -> Mask:
    def sample() -> tuple[float, float]:
        return float(rng.uniform(-0.62, 0.62)), float(rng.uniform(-0.62, 0.62))

    mask = empty_mask()
    for x, y in scatter(rng, finding.count or 0, sample, px(32)):
        r = float(rng.uniform(px(7.2), px(8.8)))
        wall = r + px(3.6)
        paint_rgb(image, frame.disc(x, y, wall + px(1)), (0.80, 0.52, 0.74))
        lumen = frame.blob(rng, x, y, r, wobble=0.07)
        paint_rgb(image, lumen, (0.98, 0.97, 0.98))
        turns = np.linspace(0, 2 * math.pi, round(wall * 48 * 2.1), endpoint=False)
        for angle in turns:
            at = r + px(2.6)
            nuclei.append(
                (x + at * math.cos(angle), y + at * math.sin(angle), px(1.3), px(1.2), (88, 50, 140))
            )
        taken.append((x, y, wall + 0.02))
        mask |= lumen > 0.5
    return mask
