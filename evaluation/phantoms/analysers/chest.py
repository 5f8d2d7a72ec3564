"""Findings in frontal chest films, from brightness between air (0) and abdomen (1) at known places.

A place is given for the patient's left in picture coordinates and mirrored for the right.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from evaluation.phantoms.analysers.measure import axes, smooth
from evaluation.phantoms.core import SIDES, Field, Finding

Box = tuple[float, float, float, float]
"""Left, right, top and bottom."""

PLEURAL_AIR = 0.20
"""Brightness of air in the chest, at most."""
AIR_AREA = 220
"""Pixels of such air on one side, at least."""
LUNG = 0.72
"""Brightness of lung, at most."""
DENSE = 0.85
"""Brightness of fluid, heart or mass, at least."""
BASE: Box = (0.55, 0.85, 0.33, 0.62)
"""The outer base of a lung, hidden only by an effusion."""
BASE_LUNG = 20
ABOVE_BASE: Box = (0.50, 0.72, 0.27, 0.36)
MIDDLE: Box = (0.45, 0.70, -0.04, 0.06)
"""Where only a large effusion reaches."""
APEX_OF_HEART: Box = (0.50, 0.60, 0.20, 0.32)
BESIDE_SPINE: Box = (0.28, 0.33, 0.10, 0.30)
BESIDE_SPINE_LOW: Box = (0.27, 0.33, 0.26, 0.34)
MASS_CENTRE: dict[str, Box] = {"left": (0.40, 0.58, -0.42, -0.06), "right": (0.40, 0.58, -0.42, 0.08)}
MASS_RADIUS = 4.8
LARGE_RADIUS = 10.5
"""Radius in pixels of the largest disc within a mass, between small and large."""


def analyse(picture: Field) -> tuple[Finding, ...]:
    x, y = axes()
    grey = smooth(picture.mean(axis=2), 1.0)
    abdomen, air = float(np.median(grey[(y > 0.8) & (np.abs(x) > 0.2)])), float(np.percentile(grey, 0.5))
    film = Film((grey - air) / max(abdomen - air, 0.05))
    findings: list[Finding] = []
    effusions: dict[str, str] = {}
    masses: dict[str, str] = {}
    for side in SIDES:
        effusion = film.effusion(side)
        if effusion:
            effusions[side] = effusion
            findings.append(Finding("pleural effusion", side=side, size=effusion))
        if film.pleural_air(side) > AIR_AREA:
            findings.append(Finding("pneumothorax", side=side))
        mass = film.mass(side) if effusion != "large" else None
        if mass:
            masses[side] = mass
            findings.append(Finding("mass", side=side, size=mass))
    if film.wide_heart("left" in effusions, masses.get("right") == "large"):
        findings.append(Finding("cardiomegaly"))
    return tuple(findings)


class Film:
    """A chest film with brightness set to 0 for air and 1 for the abdomen."""

    def __init__(self, level: Field):
        self.level = level
        self._depth: Field = ndimage.distance_transform_edt(level > DENSE - 0.02)
        labels, _ = ndimage.label(level < PLEURAL_AIR)
        outside = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        self._air = (labels > 0) & ~np.isin(labels, outside)

    def box(self, field: Field, side: str, box: Box) -> Field:
        """Values of `field` inside a box on this side."""
        x, y = axes()
        left, right, top, bottom = box
        x = x if side == "left" else -x
        return field[(x > left) & (x < right) & (y > top) & (y < bottom)]

    def pleural_air(self, side: str) -> int:
        """Pixels of air that does not touch the picture's border."""
        return int(self.box(self._air, side, (0.1, 1, -1, 1)).sum())

    def effusion(self, side: str) -> str | None:
        """Size of the effusion on this side, if there is one."""
        hidden = int((self.box(self.level, side, BASE) < LUNG).sum()) < BASE_LUNG
        if not hidden or (self.box(self.level, side, ABOVE_BASE) > DENSE).mean() < 0.5:
            return None
        return "large" if (self.box(self.level, side, MIDDLE) > DENSE).mean() > 0.5 else "small"

    def mass(self, side: str) -> str | None:
        """Size of the mass on this side, from the largest disc that fits into something dense."""
        radius = float(self.box(self._depth, side, MASS_CENTRE[side]).max())
        if radius < MASS_RADIUS:
            return None
        return "large" if radius > LARGE_RADIUS else "small"

    def wide_heart(self, left_hidden: bool, right_crowded: bool) -> bool:
        """Whether the heart reaches too far left, or too far right where fluid hides its left edge."""
        if not left_hidden:
            return bool(self.box(self.level, "left", APEX_OF_HEART).mean() > 0.87)
        if right_crowded:
            return bool(self.box(self.level, "right", BESIDE_SPINE_LOW).mean() > 0.87)
        return bool(self.box(self.level, "right", BESIDE_SPINE).mean() > 0.76)
