"""Axial abdominal CT in a soft-tissue window with contrast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from evaluation.phantoms.canvas import (
    SPOT_RADIUS,
    Frame,
    clouds,
    edge,
    empty_mask,
    grain,
    paint,
    px,
    radius,
    scatter,
    to_picture,
)
from evaluation.phantoms.core import SIZE, Field, Finding, Kind, Mask, Modality, Picture

MODALITY = Modality(
    id="abdominal_ct",
    name="abdominal CT",
    organ="abdomen",
    article="an",
    synonyms=("CT of the abdomen", "abdomen CT"),
    kinds=(
        Kind(
            "liver metastasis",
            "liver metastases",
            "Liver metastases are dark spots of cancer spread to the liver.",
            counts=(1, 2, 3),
        ),
        Kind(
            "kidney cyst",
            "kidney cysts",
            "A kidney cyst is a round sac of fluid on the kidney.",
            sided=True,
            sized=True,
            synonyms=("renal cyst",),
        ),
        Kind(
            "aortic aneurysm",
            "aortic aneurysms",
            "An aortic aneurysm is a widened aorta.",
            article="an",
            synonyms=("aneurysm",),
        ),
    ),
)

KIDNEY = (0.42, 0.30)


class Trunk:
    """Outlines of one abdomen, shared by drawing of anatomy and findings."""

    def __init__(self, rng: np.random.Generator):
        self.frame = Frame(rng, turn=3)
        self.a = float(rng.uniform(0.88, 0.93))
        self.b = float(rng.uniform(0.70, 0.76))
        x, y = self.frame.x, self.frame.y
        power = 2.3
        self.rho: Field = ((np.abs(x) / self.a) ** power + (np.abs(y) / self.b) ** power) ** (1 / power)
        self.fat = float(rng.uniform(0.87, 0.92))
        self.cavity = edge((self.fat - 0.075 - self.rho) * self.b, px(1.5))
        """Coverage of the space within the abdominal wall."""


def draw(rng: np.random.Generator, findings: Sequence[Finding]) -> tuple[Picture, Mask]:
    """One axial slice with exactly these findings, and the mask of their pixels."""
    trunk = Trunk(rng)
    kinds = {finding.kind for finding in findings}
    image = _wall(rng, trunk)
    _bowel(rng, trunk, image)
    liver = _liver(rng, trunk, image)
    _left_side(rng, trunk, image)
    _kidneys(rng, trunk, image)
    mask = _vessels(rng, trunk, image, "aortic aneurysm" in kinds)
    for finding in findings:
        if finding.kind == "liver metastasis":
            mask |= _metastases(rng, trunk, image, liver, finding)
        elif finding.kind == "kidney cyst":
            mask |= _cyst(rng, trunk, image, finding)
    image *= float(rng.uniform(0.94, 1.05))
    image += grain(rng, float(rng.uniform(0.012, 0.028)))
    return to_picture(image), mask


def _wall(rng: np.random.Generator, trunk: Trunk) -> Field:
    frame, rho = trunk.frame, trunk.rho
    image = np.full_like(rho, 0.01)
    paint(image, edge((1 - rho) * trunk.b), 0.24)
    paint(image, edge((trunk.fat - rho) * trunk.b), 0.50)
    angle = np.arctan2(frame.y, frame.x)
    ribs = edge(np.cos(angle * 14 + float(rng.uniform(0, 6.3))) - 0.75, 0.3)
    ribs *= edge(px(1.6) - np.abs(rho - trunk.fat + 0.04) * trunk.b, px(1.5)) * edge(
        np.abs(frame.x) - 0.35, 0.1
    )
    paint(image, ribs, 0.92)
    paint(image, trunk.cavity, 0.25 + 0.02 * clouds(rng, 8))
    for sign in (-1, 1):
        muscle = frame.ellipse(sign * 0.27, 0.54, 0.20, 0.115, turn=sign * -12)
        paint(image, np.maximum(muscle, frame.ellipse(sign * 0.20, 0.36, 0.085, 0.11)), 0.52)
    paint(image, frame.ellipse(0, 0.60, 0.05, 0.12), 0.88)
    paint(image, frame.ellipse(0, 0.36, 0.155, 0.125), 0.92)
    paint(image, frame.ellipse(0, 0.35, 0.11, 0.085, soft=px(3)), 0.76)
    paint(image, frame.ellipse(0, 0.50, 0.055, 0.045), 0.45)
    return image


def _liver(rng: np.random.Generator, trunk: Trunk, image: Field) -> Field:
    frame = trunk.frame
    right = frame.ellipse(-0.47, -0.10, 0.40, 0.50, turn=8)
    left = frame.ellipse(-0.10, -0.34, 0.34, 0.20, turn=10)
    liver = np.maximum(right, left) * trunk.cavity
    liver *= 1 - frame.ellipse(-0.04, 0.36, 0.32, 0.34)
    liver *= 1 - frame.ellipse(-KIDNEY[0], KIDNEY[1], 0.20, 0.22)
    paint(image, liver, float(rng.uniform(0.62, 0.68)) + 0.015 * clouds(rng, 12))
    for _ in range(3):
        x, y, turn = (
            float(rng.uniform(-0.6, -0.3)),
            float(rng.uniform(-0.3, 0.0)),
            float(rng.uniform(-60, 60)),
        )
        paint(image, frame.ellipse(x, y, 0.10, 0.014, turn=turn) * liver * 0.6, 0.76)
    return liver


def _left_side(rng: np.random.Generator, trunk: Trunk, image: Field) -> None:
    """Stomach with air and contrast level in front, spleen behind."""
    frame = trunk.frame
    stomach = frame.ellipse(0.36, -0.32, 0.27, 0.20, turn=-14) * trunk.cavity
    paint(image, stomach, 0.50)
    level = float(rng.uniform(-0.40, -0.33))
    paint(
        image, frame.ellipse(0.36, -0.32, 0.24, 0.17, turn=-14) * edge(level - frame.y) * trunk.cavity, 0.02
    )
    spleen = frame.ellipse(0.68, 0.02, 0.12, 0.27, turn=-6) * trunk.cavity
    paint(image, spleen, float(rng.uniform(0.64, 0.70)) + 0.015 * clouds(rng, 10))


def _bowel(rng: np.random.Generator, trunk: Trunk, image: Field) -> None:
    frame = trunk.frame
    for _ in range(6):
        x, y = float(rng.uniform(-0.02, 0.5)), float(rng.uniform(-0.12, 0.12))
        loop = frame.disc(x, y, float(rng.uniform(0.065, 0.09))) * trunk.cavity
        paint(image, loop, 0.52)
        paint(image, frame.disc(x, y, 0.03, soft=px(2)) * trunk.cavity, float(rng.choice([0.45, 0.6])))
    paint(image, frame.ellipse(0.10, -0.06, 0.24, 0.055, turn=-16) * trunk.cavity, 0.54)


def _kidneys(rng: np.random.Generator, trunk: Trunk, image: Field) -> None:
    frame = trunk.frame
    for sign in (-1, 1):
        x, y = sign * KIDNEY[0], KIDNEY[1] + float(rng.uniform(-0.02, 0.02))
        paint(image, frame.ellipse(x, y, 0.175, 0.195), 0.25)
        paint(image, frame.ellipse(x, y, 0.125, 0.155, turn=sign * 20), float(rng.uniform(0.80, 0.86)))
        paint(image, frame.ellipse(x - sign * 0.06, y, 0.05, 0.06, soft=px(3)), 0.42)


def _vessels(rng: np.random.Generator, trunk: Trunk, image: Field, widened: bool) -> Mask:
    """Vena cava and aorta in front of the spine; returns the aorta's mask where it is widened."""
    frame = trunk.frame
    r = float(rng.uniform(px(8.8), px(10.5)) if widened else rng.uniform(0.062, 0.075))
    paint(image, frame.ellipse(-0.13 - (0.05 if widened else 0), 0.18, 0.075, 0.06), 0.66)
    y = 0.255 - r - 0.02
    paint(image, frame.disc(0.05, y, r + 0.03), 0.25)
    aorta = frame.disc(0.05, y, r)
    paint(image, aorta, float(rng.uniform(0.86, 0.93)))
    return aorta > 0.5 if widened else empty_mask()


def _metastases(rng: np.random.Generator, trunk: Trunk, image: Field, liver: Field, finding: Finding) -> Mask:
    frame = trunk.frame
    deep = ndimage.distance_transform_edt(liver > 0.5) * (2 / SIZE) > SPOT_RADIUS[1] + px(0.7)
    rows, columns = np.nonzero(deep & (frame.y < 0.12))

    def sample() -> tuple[float, float]:
        index = int(rng.integers(len(rows)))
        at = rows[index], columns[index]
        return float(frame.x[at]), float(frame.y[at])

    mask = empty_mask()
    for x, y in scatter(rng, finding.count or 0, sample, px(17.5)):
        spot = trunk.frame.blob(rng, x, y, float(rng.uniform(*SPOT_RADIUS)), wobble=0.06) * liver
        paint(image, spot, float(rng.uniform(0.30, 0.36)))
        mask |= spot > 0.5
    return mask


def _cyst(rng: np.random.Generator, trunk: Trunk, image: Field, finding: Finding) -> Mask:
    r = radius(finding.size, rng)
    sign = 1 if finding.side == "left" else -1
    out = 0.06 if finding.size == "large" else 0.11
    x = sign * (KIDNEY[0] + out + float(rng.uniform(-0.02, 0.02)))
    y = KIDNEY[1] - (0.10 if finding.size == "large" else 0.05) + float(rng.uniform(-0.03, 0.03))
    paint(image, trunk.frame.disc(x, y, r + 0.035) * trunk.cavity, 0.72)
    cyst = trunk.frame.disc(x, y, r) * trunk.cavity
    paint(image, cyst, float(rng.uniform(0.36, 0.40)))
    return cyst > 0.5
