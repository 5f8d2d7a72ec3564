"""Findings in axial brain MRI, from brightness relative to white matter and from symmetry."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from evaluation.phantoms.analysers.measure import Body, Region, opened, regions, side, smooth
from evaluation.phantoms.core import Field, Finding, Mask

BRIGHT = 1.28
"""An enhancing lesion's brightness over white matter's, at least."""
DARK = 0.52
"""Fluid's and dead tissue's brightness over white matter's, at most."""
LARGE_RADIUS = 9.3
"""Pixels. Enhancing edges shrink at the threshold, so this lies below the drawn radii's middle."""
WIDE_VENTRICLES = 0.25
"""Dark share of the inner brain on either side, at least."""
INFARCT_DIFFERENCE = 0.13
"""Difference between the dark shares of the two halves of the outer brain, at least."""


def analyse(picture: Field) -> tuple[Finding, ...]:
    grey = smooth(picture.mean(axis=2), 1.0)
    head = np.asarray(ndimage.binary_fill_holes(grey > 0.35 * np.percentile(grey, 90)))
    body = Body(head, upright=True)
    white = _white_matter(grey[body.rho < 0.76])
    bright = ndimage.binary_fill_holes((grey > BRIGHT * white) & (body.rho < 0.83))
    findings = _enhancing(body, regions(opened(np.asarray(bright), 2), 40))

    dark = grey < DARK * white
    inner, outer = body.rho < 0.62, (body.rho > 0.55) & (body.rho < 0.78)
    left, right = body.x > 0, body.x < 0
    difference = _share(dark, outer & left) - _share(dark, outer & right)
    if abs(difference) > INFARCT_DIFFERENCE:
        findings.append(Finding("infarct", side=side(difference)))
    if min(_share(dark, inner & left), _share(dark, inner & right)) > WIDE_VENTRICLES:
        findings.append(Finding("hydrocephalus"))
    return tuple(findings)


def _white_matter(levels: Field) -> float:
    """Brightness of white matter among these pixels, whatever share of them fluid or lesions take."""
    first = float(np.percentile(levels, 65))
    return float(np.percentile(levels[(levels >= 0.75 * first) & (levels <= 1.25 * first)], 65))


def _enhancing(body: Body, spots: list[Region]) -> list[Finding]:
    """Several spots are metastases; a large one, or a single small one, is a tumor."""
    large = [spot for spot in spots if spot.radius > LARGE_RADIUS]
    small = [spot for spot in spots if spot.radius <= LARGE_RADIUS]
    findings = [Finding("tumor", side=side(body.at(spot)[0]), size="large") for spot in large]
    if len(small) > 1:
        findings.append(Finding("brain metastasis", count=len(small)))
    elif small:
        findings.append(Finding("tumor", side=side(body.at(small[0])[0]), size="small"))
    return findings


def _share(mask: Mask, where: Mask) -> float:
    return float(mask[where].mean()) if where.any() else 0.0
