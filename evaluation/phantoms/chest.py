"""Frontal chest radiograph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.phantoms.canvas import (
    Frame,
    clouds,
    edge,
    empty_mask,
    grain,
    paint,
    px,
    radius,
    to_picture,
)
from evaluation.phantoms.core import Field, Finding, Kind, Mask, Modality, Picture

MODALITY = Modality(
    id="chest_xray",
    name="chest radiograph",
    organ="chest",
    synonyms=("chest x-ray", "chest film"),
    pairs=0.3,
    kinds=(
        Kind(
            "pleural effusion",
            "pleural effusions",
            "A pleural effusion is fluid between the lung and the chest wall.",
            sided=True,
            sized=True,
            synonyms=("effusion",),
        ),
        Kind(
            "pneumothorax",
            "pneumothoraces",
            "A pneumothorax is air between the lung and the chest wall.",
            sided=True,
        ),
        Kind(
            "mass",
            "masses",
            "A mass is a round dense spot in the lung.",
            sided=True,
            sized=True,
            synonyms=("lung mass",),
        ),
        Kind(
            "cardiomegaly",
            "cardiomegaly",
            "Cardiomegaly is an enlarged heart.",
            article="",
            synonyms=("enlarged heart",),
        ),
    ),
)


class Thorax:
    """Outlines of one patient's chest, shared by drawing of anatomy and findings."""

    def __init__(self, rng: np.random.Generator, enlarged: bool):
        self.frame = Frame(rng, turn=3)
        self.width = float(rng.uniform(0.80, 0.87))
        self.top = float(rng.uniform(-0.80, -0.74))
        self.base = float(rng.uniform(0.46, 0.54))
        self.heart = float(rng.uniform(0.55, 0.61) if enlarged else rng.uniform(0.31, 0.37))
        self.heart_y = float(rng.uniform(0.20, 0.26))
        x, y = self.frame.x, self.frame.y
        self.across = np.abs(x)
        down = np.clip((y - self.top) / (self.base - self.top), 0, 1)
        self.lateral: Field = 0.36 + (self.width - 0.36) * np.sqrt(1 - (1 - down) ** 2.4)
        self.medial: Field = 0.15 + 0.03 * np.cos(down * 5)
        apex = self.top + 1.5 * (self.across - 0.36) ** 2
        tilt = np.where(x < 0, -0.035, 0.02)
        middle = 0.5 * (self.width + 0.13)
        dome = self.base + tilt + 0.20 * ((self.across - middle + 0.06) / 0.36) ** 2 - 0.06
        self.dome: Field = dome.astype(np.float32)
        inside = np.minimum.reduce(
            [self.lateral - self.across, self.across - self.medial, y - apex, self.dome - y]
        )
        self.inside: Field = inside
        self.lungs = edge(inside, px(2.5))

    def half(self, side: str | None) -> Field:
        """Coverage of one side of the body; the patient's left is on the right of the picture."""
        return edge(self.frame.x if side == "left" else -self.frame.x)


def draw(rng: np.random.Generator, findings: Sequence[Finding]) -> tuple[Picture, Mask]:
    """One chest film with exactly these findings, and the mask of their pixels."""
    thorax = Thorax(rng, any(finding.kind == "cardiomegaly" for finding in findings))
    frame, x, y = thorax.frame, thorax.frame.x, thorax.frame.y
    image = _body(rng, thorax)
    mask = empty_mask()
    for finding in findings:
        if finding.kind == "mass":
            mask |= _mass(rng, thorax, image, finding)
        elif finding.kind == "pneumothorax":
            mask |= _pneumothorax(rng, thorax, image, finding)
    heart = _heart(thorax)
    paint(image, heart * 0.92, 0.80 - 0.06 * frame.disc(0.12, thorax.heart_y, 0.3, soft=0.5))
    for finding in findings:
        if finding.kind == "cardiomegaly":
            mask |= (heart > 0.5) & (np.abs(x) > 0.3) & (y < thorax.dome)
        elif finding.kind == "pleural effusion":
            mask |= _effusion(rng, thorax, image, finding)
    image *= float(rng.uniform(0.92, 1.05))
    image += grain(rng, float(rng.uniform(0.008, 0.02)))
    return to_picture(image), mask


def _body(rng: np.random.Generator, thorax: Thorax) -> Field:
    frame, x, y = thorax.frame, thorax.frame.x, thorax.frame.y
    image = np.full_like(x, 0.03)
    shoulder = np.minimum(
        1.12 - thorax.across, y - (-1.06 + 0.75 * np.clip(thorax.across - 0.22, 0, None) ** 1.4)
    )
    paint(image, edge(shoulder, px(4)), 0.56 + 0.10 * edge(y - thorax.base, 0.5) + 0.03 * clouds(rng, 5))
    paint(image, edge(0.17 - thorax.across, 0.16), 0.78)
    ribs = _ribs(rng, thorax)
    lung = float(rng.uniform(0.17, 0.25)) + 0.06 * edge(y - 0.05, 0.9) + 0.03 * clouds(rng, 14)
    lung += 0.16 * np.exp(-(((thorax.across - 0.24) / 0.14) ** 2) - ((y - 0.02) / 0.26) ** 2)
    paint(image, thorax.lungs, lung + ribs)
    image += (1 - thorax.lungs) * ribs * 0.5 * edge(thorax.base + 0.2 - y, 0.2)
    paint(image, edge(0.045 - np.abs(x - 0.01), 0.05) * edge(-0.22 - y, 0.1) * 0.6, 0.45)
    for turn, cx in ((14, -0.42), (-14, 0.42)):
        paint(image, frame.ellipse(cx, thorax.top + 0.13, 0.36, 0.032, turn=-turn) * 0.5, 0.72)
    vertebrae = 0.04 * np.cos((y + 0.1) * 42) * edge(0.09 - thorax.across, 0.06)
    image += vertebrae * edge(y + 0.8, 0.3)
    bubble = frame.ellipse(float(rng.uniform(0.36, 0.46)), thorax.base + 0.20, 0.13, 0.06, soft=px(3))
    paint(image, bubble * 0.7, 0.35)
    return image


def _ribs(rng: np.random.Generator, thorax: Thorax) -> Field:
    """Brightness that the ribs add: arcs falling from the spine to the side."""
    y = thorax.frame.y
    arc = y - 0.34 * np.sin(np.clip(thorax.across - 0.1, 0, 1) * 2.3) ** 2 + 0.05
    wave = np.cos(arc * float(rng.uniform(25, 28)) + float(rng.uniform(0, 6.3)))
    strength = float(rng.uniform(0.05, 0.08))
    return (
        strength * np.clip(wave * 1.4 + 0.1, 0, 1) * edge(thorax.width + 0.05 - thorax.across, 0.05)
    ).astype(np.float32)


def _heart(thorax: Thorax) -> Field:
    """Heart and great vessels. Grows to both sides, more to the patient's left."""
    frame, half = thorax.frame, thorax.heart
    shift = 0.05 + 0.22 * half
    heart = frame.ellipse(shift, thorax.heart_y, half, 0.22 + 0.24 * half, turn=18, soft=px(2.5))
    aorta = frame.ellipse(0.09, -0.22, 0.13, 0.16, soft=px(3))
    return np.maximum(heart, aorta) * edge(thorax.dome + 0.3 - frame.y, 0.2)


def _mass(rng: np.random.Generator, thorax: Thorax, image: Field, finding: Finding) -> Mask:
    r = radius(finding.size, rng)
    sign = 1 if finding.side == "left" else -1
    cx = sign * float(rng.uniform(0.46, 0.56))
    low = 0.16 if finding.side == "right" else -0.02
    cy = float(rng.uniform(-0.36, low - r * 0.4))
    blob = thorax.frame.blob(rng, cx, cy, r, soft=px(2)) * edge(thorax.inside + 0.03)
    paint(image, blob * 0.95, float(rng.uniform(0.68, 0.76)))
    return blob > 0.5


def _pneumothorax(rng: np.random.Generator, thorax: Thorax, image: Field, finding: Finding) -> Mask:
    y = thorax.frame.y
    gap = float(rng.uniform(0.21, 0.28))
    depth = thorax.lateral - thorax.across - gap * (0.8 + 0.35 * edge(-0.1 - y, 0.8))
    depth = np.minimum(depth, y - (thorax.top + 0.22))
    half = thorax.half(finding.side)
    air = edge(-depth, px(1.5)) * thorax.lungs * half
    lung = edge(depth, px(1.5)) * thorax.lungs * half
    paint(image, lung * 0.35, 0.48)
    paint(image, air, 0.05 + 0.25 * np.clip(image - 0.26, 0, 1))
    pleura = np.exp(-((depth / px(1.0)) ** 2)) * thorax.lungs * half
    paint(image, pleura * 0.6, 0.62)
    return air > 0.5


def _effusion(rng: np.random.Generator, thorax: Thorax, image: Field, finding: Finding) -> Mask:
    frame = thorax.frame
    height = float(rng.uniform(0.66, 0.80) if finding.size == "large" else rng.uniform(0.27, 0.33))
    outward = np.clip((thorax.across - 0.2) / (thorax.width - 0.2), 0, 1)
    level = thorax.base - 0.02 - height * (0.78 + 0.36 * outward**2)
    fluid = edge(frame.y - level, px(3)) * edge(thorax.inside + 0.06, px(2)) * thorax.half(finding.side)
    fluid *= edge(thorax.across - 0.16, px(3))
    paint(image, fluid * 0.96, float(rng.uniform(0.76, 0.84)) + 0.01 * clouds(rng, 8))
    return (fluid > 0.5) & (thorax.inside > 0)
