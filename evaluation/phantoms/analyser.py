"""Reading a picture's findings back from its pixels, without knowing how it was made.

Judges real, reconstructed and generated phantoms alike, so every rule leaves room for blur, noise
and small shifts of brightness and colour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from evaluation.phantoms.analysers import abdomen, brain, chest, fundus, histology
from evaluation.phantoms.catalogue import modality as modality_of
from evaluation.phantoms.core import SIZE, Field, Finding, Picture

_ANALYSERS: dict[str, Callable[[Field], tuple[Finding, ...]]] = {
    "chest_xray": chest.analyse,
    "brain_mri": brain.analyse,
    "abdominal_ct": abdomen.analyse,
    "fundus": fundus.analyse,
    "histology": histology.analyse,
}


def analyse(picture: Picture, modality: str) -> tuple[Finding, ...]:
    """Findings that a picture shows, in the order of the modality's kinds; empty if it looks normal.

    Args:
        picture: uint8 [height, width, 3] RGB; other sizes than SIZE are resampled to it.
        modality: the way of taking pictures that this one is meant to show.

    Raises:
        ValueError: unknown modality, or not a uint8 RGB picture.
    """
    known = modality_of(modality)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(
            f"picture must be uint8 [height, width, 3]; got {picture.dtype} {list(picture.shape)}"
        )
    if picture.shape[:2] != (SIZE, SIZE):
        picture = np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    order = [kind.name for kind in known.kinds]
    found = _ANALYSERS[known.id](picture.astype(np.float32) / 255)
    return tuple(sorted(found, key=lambda finding: order.index(finding.kind)))


def findings_present(described: Sequence[Finding], found: Sequence[Finding]) -> tuple[int, int]:
    """How many of the described findings are among those found, and how many were described.

    An attribute described as None matches any. A described normal picture (empty) counts as one,
    right if nothing was found. Each finding found answers for one described finding at most.
    """
    if not described:
        return int(not found), 1
    left = list(found)
    right = 0
    for wanted in sorted(described, key=_freedom):
        match = next((finding for finding in left if _shows(finding, wanted)), None)
        if match is not None:
            left.remove(match)
            right += 1
    return right, len(described)


def _freedom(wanted: Finding) -> int:
    """Number of attributes that may be anything; the strictest findings choose first."""
    return (wanted.side, wanted.size, wanted.count).count(None)


def _shows(finding: Finding, wanted: Finding) -> bool:
    return finding.kind == wanted.kind and all(
        getattr(wanted, name) in (None, getattr(finding, name)) for name in ("side", "size", "count")
    )
