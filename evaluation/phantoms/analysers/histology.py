"""Findings in H&E histology, from colour relative to the stroma's and the size of uniform regions."""

from __future__ import annotations

import numpy as np

from evaluation.phantoms.analysers.measure import opened, regions, smooth
from evaluation.phantoms.core import Field, Finding

CROWD_RED = 0.84
"""Red of crowded nuclei over the stroma's, at most."""
INFLAMMATION_HUE = 0.70
"""Green plus half of blue minus red (each over the stroma's) of small blue cells, at least; violet cells lie below."""


def analyse(picture: Field) -> tuple[Finding, ...]:
    stroma = np.median(smooth(picture, 0.8).reshape(-1, 3), axis=0)
    findings: list[Finding] = []

    crowded = smooth(picture[:, :, 0], 2.0) < CROWD_RED * stroma[0]
    for crowd in regions(opened(crowded, 4.5), 60):
        red, green, blue = picture[crowd.mask].mean(axis=0) / stroma
        if green + (blue - red) / 2 > INFLAMMATION_HUE:
            findings.append(Finding("inflammation"))
        else:
            findings.append(Finding("tumor nest", size=crowd.size))

    bright = smooth(picture[:, :, 1], 0.8)
    white = bright > stroma[1] + 0.58 * (0.97 - stroma[1])
    lumens = regions(opened(white, 3.5), 75)
    if lumens:
        findings.append(Finding("dilated gland", count=len(lumens)))
    return tuple(findings)
