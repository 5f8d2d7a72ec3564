"""Axial brain MRI, T1-weighted with contrast: fluid dark, white matter bright, enhancing lesions brightest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
from evaluation.phantoms.core import Field, Finding, Kind, Mask, Modality, Picture

MODALITY = Modality(
    id="brain_mri",
    name="brain MRI",
    organ="brain",
    synonyms=("MRI of the brain", "head MRI"),
    kinds=(
        Kind(
            "tumor",
            "tumors",
            "A brain tumor is a growth that takes up contrast.",
            sided=True,
            sized=True,
            synonyms=("tumour",),
        ),
        Kind(
            "infarct",
            "infarcts",
            "An infarct is brain tissue that died without blood.",
            article="an",
            sided=True,
            synonyms=("stroke",),
        ),
        Kind(
            "brain metastasis",
            "brain metastases",
            "Brain metastases are spots of cancer spread to the brain.",
            counts=(2, 3),
        ),
        Kind(
            "hydrocephalus",
            "hydrocephalus",
            "Hydrocephalus is too much fluid in wide ventricles.",
            article="",
            synonyms=("ventricle enlargement",),
        ),
    ),
)


class Head:
    """Outlines of one head, shared by drawing of anatomy and findings."""

    def __init__(self, rng: np.random.Generator, wide: bool):
        self.frame = Frame(rng, turn=5)
        self.a = float(rng.uniform(0.70, 0.76))
        self.b = float(rng.uniform(0.86, 0.91))
        x, y = self.frame.x, self.frame.y
        egg = 1 + 0.06 * y
        self.rho: Field = np.sqrt((x / (self.a * egg)) ** 2 + (y / self.b) ** 2).astype(np.float32)
        self.theta: Field = np.arctan2(y / self.b, x / self.a)
        self.brain = edge((0.83 - self.rho) * self.a, px(1.5))
        self.ventricle = float(rng.uniform(2.3, 2.8) if wide else rng.uniform(0.8, 1.1))


def draw(rng: np.random.Generator, findings: Sequence[Finding]) -> tuple[Picture, Mask]:
    """One axial slice with exactly these findings, and the mask of their pixels."""
    kinds = {finding.kind for finding in findings}
    head = Head(rng, "hydrocephalus" in kinds)
    image = _head(rng, head)
    ventricles = _ventricles(head)
    paint(image, ventricles * head.brain, 0.10)
    mask = empty_mask()
    for finding in findings:
        if finding.kind == "tumor":
            mask |= _tumor(rng, head, image, finding)
        elif finding.kind == "infarct":
            mask |= _infarct(rng, head, image, finding)
        elif finding.kind == "brain metastasis":
            mask |= _metastases(rng, head, image, finding)
        elif finding.kind == "hydrocephalus":
            mask |= ventricles > 0.5
    image *= float(rng.uniform(0.92, 1.06))
    image += grain(rng, float(rng.uniform(0.008, 0.022)))
    return to_picture(image), mask


def _head(rng: np.random.Generator, head: Head) -> Field:
    frame, rho, theta = head.frame, head.rho, head.theta
    image = np.full_like(rho, 0.02)
    paint(image, edge((1 - rho) * head.a, px(1.5)), float(rng.uniform(0.62, 0.78)))
    paint(image, edge((0.935 - rho) * head.a, px(1.5)), 0.07)
    paint(image, head.brain, float(rng.uniform(0.36, 0.42)) + 0.03 * clouds(rng, 10))
    folds = np.full_like(theta, 0.69)
    for wave in (7, 11, 16, 23):
        folds += float(rng.uniform(0.02, 0.04)) * np.cos(wave * theta + float(rng.uniform(0, 6.3)))
    white = edge((folds - rho) * head.a, px(2.5))
    paint(image, white * head.brain, float(rng.uniform(0.56, 0.64)) + 0.02 * clouds(rng, 6))
    sulci = np.clip(np.cos(19 * theta + 3 * clouds(rng, 6)) - 0.72, 0, 1) * 2.4
    paint(image, np.clip(sulci, 0, 1) * edge((rho - 0.68) * head.a, 0.05) * head.brain * 0.7, 0.16)
    for sign in (-1, 1):
        paint(image, frame.ellipse(sign * 0.21, 0.05, 0.09, 0.19, turn=sign * -12, soft=px(3)) * 0.8, 0.44)
    falx = edge(px(0.8) - np.abs(frame.x), px(1.2)) * edge(np.abs(frame.y) - 0.36, 0.1)
    paint(image, falx * head.brain * 0.75, 0.18)
    return image


def _ventricles(head: Head) -> Field:
    """Both lateral ventricles, their front and back horns, and the third ventricle."""
    frame, k = head.frame, head.ventricle
    w, long = 0.055 * k, 1 + 0.16 * (k - 1)
    parts = [frame.ellipse(0, 0.10, 0.018 * k, 0.09)]
    for sign in (-1, 1):
        parts.append(frame.ellipse(sign * (0.07 + 0.045 * k), -0.17, w, 0.19 * long, turn=sign * 16))
        parts.append(frame.ellipse(sign * (0.12 + 0.05 * k), 0.27, w, 0.19 * long, turn=sign * -24))
    return np.maximum.reduce(parts)


def _tumor(rng: np.random.Generator, head: Head, image: Field, finding: Finding) -> Mask:
    r = radius(finding.size, rng)
    sign = 1 if finding.side == "left" else -1
    cx = sign * float(rng.uniform(0.33, 0.37) if finding.size == "large" else rng.uniform(0.30, 0.42))
    reach = 0.26 if finding.size == "large" else 0.38
    cy = float(rng.uniform(-reach, reach))
    halo = head.frame.disc(cx, cy, r + 0.08, soft=0.12) * head.brain
    paint(image, halo * 0.7, 0.33)
    blob = head.frame.blob(rng, cx, cy, r) * head.brain
    paint(image, blob, float(rng.uniform(0.88, 0.96)))
    if finding.size == "large":
        core = head.frame.blob(rng, cx, cy, r * 0.45, wobble=0.15, soft=px(3))
        paint(image, core * 0.6, 0.5)
    return blob > 0.5


def _infarct(rng: np.random.Generator, head: Head, image: Field, finding: Finding) -> Mask:
    """A dark wedge from the ventricle's edge to the cortex, the base outwards."""
    centre = float(rng.uniform(-0.55, 0.55))
    theta = (
        head.theta
        if finding.side == "left"
        else np.arctan2(np.sin(np.pi - head.theta), np.cos(np.pi - head.theta))
    )
    half = float(rng.uniform(0.38, 0.5))
    spread = (half - np.abs(theta - centre)) * np.clip(head.rho, 0.2, 1) * head.a
    depth = (head.rho - float(rng.uniform(0.40, 0.46))) * head.a
    wedge = edge(np.minimum(spread, depth) + 0.02 * clouds(rng, 9), px(2)) * head.brain
    paint(image, wedge * 0.95, float(rng.uniform(0.17, 0.22)))
    return wedge > 0.5


def _metastases(rng: np.random.Generator, head: Head, image: Field, finding: Finding) -> Mask:
    def sample() -> tuple[float, float]:
        return float(rng.uniform(-0.46, 0.46)), float(rng.uniform(-0.6, 0.6))

    def inside(point: tuple[float, float]) -> bool:
        x, y = point
        return (x / 0.48) ** 2 + (y / 0.62) ** 2 < 1 and abs(x) > 0.2

    mask = empty_mask()
    for x, y in scatter(rng, finding.count or 0, sample, px(22), inside):
        r = float(rng.uniform(*SPOT_RADIUS))
        paint(image, head.frame.disc(x, y, r + 0.06, soft=0.08) * head.brain * 0.7, 0.33)
        spot = head.frame.blob(rng, x, y, r, wobble=0.05)
        paint(image, spot, float(rng.uniform(0.88, 0.96)))
        mask |= spot > 0.5
    return mask
