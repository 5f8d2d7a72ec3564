"""Fundus photograph: the back of the eye in colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from evaluation.phantoms.canvas import (
    SPOT_RADIUS,
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
    id="fundus",
    name="fundus photograph",
    organ="eye",
    synonyms=("fundus photo", "retinal photograph"),
    kinds=(
        Kind(
            "hemorrhage",
            "hemorrhages",
            "A retinal hemorrhage is a dark red spot of blood.",
            counts=(1, 2, 3),
            synonyms=("haemorrhage",),
        ),
        Kind(
            "exudate",
            "exudates",
            "An exudate is a yellow patch of fat that leaked from vessels.",
            article="an",
            sized=True,
            synonyms=("hard exudate",),
        ),
        Kind(
            "enlarged optic cup",
            "enlarged optic cups",
            "An enlarged optic cup is a sign of glaucoma.",
            article="an",
            synonyms=("glaucoma", "optic cup enlargement"),
        ),
    ),
)

DISC_RADIUS = px(10.5)


class Eye:
    """Landmarks of one eye; `nose` is 1 where the optic disc lies right of the centre, else -1."""

    def __init__(self, rng: np.random.Generator):
        self.frame = Frame(rng, turn=6, shift=0.02, scale=0.02)
        self.nose = 1 if rng.random() < 0.5 else -1
        self.disc = (self.nose * float(rng.uniform(0.46, 0.54)), float(rng.uniform(-0.06, 0.06)))
        self.macula = (self.nose * float(rng.uniform(-0.18, -0.10)), float(rng.uniform(0.0, 0.08)))
        self.field = edge(0.95 - np.hypot(self.frame.x, self.frame.y), px(2))


def draw(rng: np.random.Generator, findings: Sequence[Finding]) -> tuple[Picture, Mask]:
    """One fundus photograph with exactly these findings, and the mask of their pixels."""
    eye = Eye(rng)
    frame = eye.frame
    image = _retina(rng, eye)
    mask = empty_mask()
    for finding in findings:
        if finding.kind == "hemorrhage":
            mask |= _hemorrhages(rng, eye, image, finding)
        elif finding.kind == "exudate":
            mask |= _exudate(rng, eye, image, finding)
    mask |= _optic_disc(rng, eye, image, any(finding.kind == "enlarged optic cup" for finding in findings))
    paint_rgb(image, _vessels(rng, eye) * 0.8, (0.42, 0.09, 0.05))
    image *= (eye.field * (0.62 + 0.38 * np.exp(-((np.hypot(frame.x, frame.y) / 0.95) ** 4))))[:, :, None]
    image += grain(rng, 0.012)[:, :, None] * eye.field[:, :, None]
    return to_picture(image), mask


def _retina(rng: np.random.Generator, eye: Eye) -> Field:
    red, green = float(rng.uniform(0.80, 0.90)), float(rng.uniform(0.34, 0.42))
    image = np.empty((SIZE, SIZE, 3), dtype=np.float32)
    shade = 1 + 0.05 * clouds(rng, 6) + 0.02 * clouds(rng, 20)
    for channel, level in enumerate((red, green, green * 0.42)):
        image[:, :, channel] = level * shade
    macula = np.exp(-((np.hypot(eye.frame.x - eye.macula[0], eye.frame.y - eye.macula[1]) / 0.15) ** 2))
    paint_rgb(image, (0.55 * macula).astype(np.float32), (0.58, 0.20, 0.08))
    return image


def _optic_disc(rng: np.random.Generator, eye: Eye, image: Field, enlarged: bool) -> Mask:
    x, y = eye.disc
    r = DISC_RADIUS * float(rng.uniform(0.95, 1.05))
    disc = eye.frame.ellipse(x, y, r * 0.94, r, soft=px(2))
    paint_rgb(image, disc, (0.96, 0.70, 0.36))
    share = float(rng.uniform(0.72, 0.80) if enlarged else rng.uniform(0.28, 0.36))
    cup = eye.frame.disc(x, y, r * share, soft=px(1.5))
    paint_rgb(image, cup, (1.0, 0.97, 0.86))
    return cup > 0.5 if enlarged else empty_mask()


def _vessels(rng: np.random.Generator, eye: Eye) -> Field:
    """Arcades above and below the macula and short vessels towards the nose, thinning outwards."""
    scale = 3
    sheet = Image.new("L", (SIZE * scale, SIZE * scale))
    pen = ImageDraw.Draw(sheet)
    cos, sin = math.cos(eye.frame.angle), math.sin(eye.frame.angle)

    def place(x: float, y: float) -> tuple[float, float]:
        x, y = x * eye.frame.scale, y * eye.frame.scale
        u, v = cos * x - sin * y + eye.frame.shift[0], sin * x + cos * y + eye.frame.shift[1]
        return (u + 1) / 2 * SIZE * scale, (v + 1) / 2 * SIZE * scale

    def trace(points: Sequence[tuple[float, float]], start: float, end: float) -> None:
        for index, (first, second) in enumerate(pairwise(points)):
            width = start + (end - start) * index / len(points)
            pen.line([place(*first), place(*second)], fill=255, width=max(1, round(width * scale)))

    steps = np.linspace(0, 1, 14)
    dx, dy = eye.disc
    for up in (-1, 1):
        for reach, start in ((float(rng.uniform(0.50, 0.58)), 1.9), (float(rng.uniform(0.34, 0.42)), 1.1)):
            bend = float(rng.uniform(1.25, 1.5))
            arc = [
                (dx - eye.nose * bend * t * t * 0.95, dy + up * (reach + 0.1) * math.sin(1.9 * t) * 1.05)
                for t in steps
            ]
            trace(arc, start, 0.7)
            for at in (4, 7, 9):
                bx, by = arc[at]
                out = up * float(rng.uniform(0.25, 0.4))
                lean = -eye.nose * float(rng.uniform(0.1, 0.3))
                trace([(bx + lean * t, by + out * t) for t in np.linspace(0, 1, 5)], 0.9, 0.5)
        slope = float(rng.uniform(0.5, 0.9))
        trace([(dx + eye.nose * 0.42 * t, dy + up * slope * 0.5 * t) for t in steps], 1.3, 0.6)
    small = sheet.resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def _clear(eye: Eye, point: tuple[float, float], reach: float) -> bool:
    """Whether a spot of this radius stays clear of disc, macula and the edge of the field."""
    return (
        math.hypot(*point) < 0.80 - reach
        and math.dist(point, eye.disc) > DISC_RADIUS + reach + 0.12
        and math.dist(point, eye.macula) > 0.12 + reach
    )


def _hemorrhages(rng: np.random.Generator, eye: Eye, image: Field, finding: Finding) -> Mask:
    def sample() -> tuple[float, float]:
        return float(rng.uniform(-0.7, 0.7)), float(rng.uniform(-0.7, 0.7))

    mask = empty_mask()
    for x, y in scatter(
        rng, finding.count or 0, sample, px(22), lambda point: _clear(eye, point, SPOT_RADIUS[1])
    ):
        spot = eye.frame.blob(rng, x, y, float(rng.uniform(*SPOT_RADIUS)), wobble=0.15)
        paint_rgb(image, spot, (0.33, 0.03, 0.03))
        mask |= spot > 0.5
    return mask


def _exudate(rng: np.random.Generator, eye: Eye, image: Field, finding: Finding) -> Mask:
    r = radius(finding.size, rng)
    if finding.size == "large":
        x, y = -eye.nose * float(rng.uniform(0.22, 0.36)), float(rng.uniform(-0.28, 0.28))
    else:

        def sample() -> tuple[float, float]:
            return -eye.nose * float(rng.uniform(0.0, 0.7)), float(rng.uniform(-0.6, 0.6))

        ((x, y),) = scatter(rng, 1, sample, 0, lambda point: _clear(eye, point, r))
    patch = eye.frame.blob(rng, x, y, r, wobble=0.14)
    speckle = np.clip(0.86 + 0.35 * clouds(rng, 26), 0.6, 1).astype(np.float32)
    paint_rgb(image, patch * speckle, (0.98, 0.88, 0.42))
    return patch > 0.5
