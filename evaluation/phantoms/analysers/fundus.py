"""Findings in fundus photographs, from colour relative to the retina's own."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from evaluation.phantoms.analysers.measure import axes, opened, regions, smooth
from evaluation.phantoms.core import Field, Finding

DARK_RED = 0.70
"""Red of a hemorrhage over the retina's, at most."""
PALE_GREEN = 1.40
"""Green of an exudate over the retina's, at least."""
WHITE_BLUE = 0.62
"""Blue of the optic cup over the retina's red, at least."""
LARGE_CUP = 3.5
"""Radius of the white part of the optic disc in pixels, at least."""
DISC_REACH = 0.30
"""Nothing pale this near the disc's centre is an exudate; the disc's radius is 0.22."""


def analyse(picture: Field) -> tuple[Finding, ...]:
    x, y = axes()
    distance = np.hypot(x, y)
    field = distance < 0.9
    shade = 0.62 + 0.38 * np.exp(-((distance / 0.95) ** 4))
    even = picture / shade[:, :, None]
    red, green, blue = np.moveaxis(smooth(even, 0.8), 2, 0)
    usual_red, usual_green = float(np.median(red[field])), float(np.median(green[field]))
    disc = _distance_to_disc(blue - 0.48 * green)
    findings: list[Finding] = []

    spots = regions(opened((red < DARK_RED * usual_red) & (distance < 0.86), 2.5), 30)
    if spots:
        findings.append(Finding("hemorrhage", count=len(spots)))

    pale = field & (smooth(even[:, :, 1], 2.0) > PALE_GREEN * usual_green) & (disc > DISC_REACH)
    for patch in regions(opened(np.asarray(ndimage.binary_fill_holes(pale)), 3), 50):
        findings.append(Finding("exudate", size=patch.size))

    white = int(((blue > WHITE_BLUE * usual_red) & (disc < DISC_REACH)).sum())
    if np.sqrt(white / np.pi) > LARGE_CUP:
        findings.append(Finding("enlarged optic cup"))
    return tuple(findings)


def _distance_to_disc(white: Field) -> Field:
    """Distance of every pixel to the optic disc, the whitest place left or right of the centre."""
    x, y = axes()
    where = (np.abs(x) > 0.35) & (np.abs(x) < 0.68) & (np.abs(y) < 0.2)
    peak = int(np.argmax(np.where(where, smooth(white, 2.5), -1)))
    return np.hypot(x - x.flat[peak], y - y.flat[peak])
