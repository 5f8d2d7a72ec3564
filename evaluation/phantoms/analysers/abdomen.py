"""Findings in axial abdominal CT, from brightness between fat (0) and liver (1) at known places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.phantoms.analysers.measure import Body, Region, opened, regions, side, smooth
from evaluation.phantoms.core import Field, Finding, Mask

ANEURYSM = 1.05
"""Brightness in front of the spine over the liver's, at least: only a widened aorta reaches there."""
CYST = (0.46, 0.70)
"""A cyst's brightness over the liver's."""
CYST_CENTRE = (0.50, 0.22)
CYST_RADIUS = 5.3
LARGE_RADIUS = 10.0
"""Radius in pixels between small and large cysts, measured within their bright rim."""
SPOT = (-0.06, 0.45)
"""A metastasis' brightness between fat (0) and liver (1)."""
SPOT_SPREAD = 0.13
SPOT_RING = 0.40
"""Share of the ring around a metastasis that is as bright as liver, at least."""


def _disc(inner: float, outer: float) -> NDArray[np.float32]:
    """Weights, summing to 1, of the pixels between two radii."""
    reach = int(outer)
    distance = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    weights = ((distance >= inner) & (distance <= outer)).astype(np.float32)
    return weights / weights.sum()


_CORE, _RING = _disc(0, 4.3), _disc(7.6, 9.5)


def analyse(picture: Field) -> tuple[Finding, ...]:
    grey = smooth(picture.mean(axis=2), 0.8)
    outline = ndimage.binary_fill_holes(grey > 0.3 * np.percentile(grey, 75))
    body = Body(np.asarray(outline), upright=False)
    x, y = body.x, body.y
    liver = float(np.percentile(_inside(grey, (x > -0.7) & (x < -0.25) & (y > -0.35) & (y < 0)), 75))
    fat = float(np.median(_inside(grey, (body.rho > 0.94) & (body.rho < 0.975))))

    cysts = _cysts(grey / max(liver, 0.05), body)
    findings = [
        Finding(
            "kidney cyst",
            side=side(body.at(cyst)[0]),
            size="large" if cyst.radius > LARGE_RADIUS else "small",
        )
        for cyst in cysts
    ]
    elsewhere = ~np.logical_or.reduce([cyst.mask for cyst in cysts]) if cysts else np.ones_like(outline)
    spots = _spots((grey - fat) / max(liver - fat, 0.05), body, elsewhere)
    if spots:
        findings.append(Finding("liver metastasis", count=spots))
    if _inside(grey, np.hypot(x - 0.05, y - 0.06) < 0.08).mean() > ANEURYSM * liver:
        findings.append(Finding("aortic aneurysm"))
    return tuple(findings)


def _inside(field: Field, where: Mask) -> Field:
    """Values of `field` where `where` is true; the whole field if that is nowhere."""
    return field[where] if where.any() else field.ravel()


def _cysts(level: Field, body: Body) -> list[Region]:
    band = (
        (level > CYST[0]) & (level < CYST[1]) & (body.rho < 0.86) & (body.y > -0.25) & (np.abs(body.x) > 0.1)
    )
    found = []
    for region in regions(opened(band, 4.0), np.pi * CYST_RADIUS**2):
        x, y = body.at(region)
        if abs(abs(x) - CYST_CENTRE[0]) < 0.2 and abs(y - CYST_CENTRE[1]) < 0.2:
            found.append(region)
    return found


def _spots(level: Field, body: Body, allowed: Mask) -> int:
    """Number of dark even discs in the liver with liver around them."""
    x, y = body.x, body.y
    liver = np.hypot((x + 0.47) / 0.30, (y + 0.10) / 0.42) < 1
    liver |= np.hypot((x + 0.10) / 0.26, (y + 0.34) / 0.13) < 1
    liver |= (x > -0.47) & (x < -0.10) & (y > -0.45) & (y < -0.20)
    liver &= (y < 0.06) & allowed
    if not liver.any():
        return 0
    rows, columns = (slice(max(axis.min() - 10, 0), axis.max() + 11) for axis in np.nonzero(liver))
    level, liver = level[rows, columns], liver[rows, columns]
    mean = ndimage.convolve(level, _CORE)
    spread = np.sqrt(np.maximum(ndimage.convolve(level * level, _CORE) - mean * mean, 0))
    ring = ndimage.convolve((level > 0.62).astype(np.float32), _RING)
    score = np.where(liver, ring - 2 * spread, -9)
    peaks = liver & (score == ndimage.maximum_filter(score, 13))
    peaks &= (mean > SPOT[0]) & (mean < SPOT[1]) & (spread < SPOT_SPREAD) & (ring > SPOT_RING)
    return int(peaks.sum())
