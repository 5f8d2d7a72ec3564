"""Every modality, and drawing a phantom from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from evaluation.phantoms import abdomen, brain, chest, fundus, histology
from evaluation.phantoms.canvas import NoRoom
from evaluation.phantoms.core import Finding, Modality, Phantom, Truth

_MODULES: dict[str, ModuleType] = {
    module.MODALITY.id: module for module in (chest, brain, abdomen, fundus, histology)
}
CATALOGUE: dict[str, Modality] = {id: module.MODALITY for id, module in _MODULES.items()}
MODALITIES: tuple[str, ...] = tuple(CATALOGUE)

_ANATOMIES = 50


def modality(id: str) -> Modality:
    """The modality of this id. Raises ValueError for an unknown one."""
    if id not in CATALOGUE:
        raise ValueError(f"unknown modality {id!r}; known: {', '.join(MODALITIES)}")
    return CATALOGUE[id]


def truth(seed: int, modality: str | None = None, findings: Sequence[Finding] | None = None) -> Truth:
    """What `draw` of the same arguments shows, without drawing it.

    Raises:
        ValueError: unknown modality, kind or attribute, or the same kind twice.
    """
    choose = np.random.default_rng([seed, 0])
    drawn = MODALITIES[int(choose.integers(len(MODALITIES)))]
    if modality is not None and modality not in CATALOGUE:
        raise ValueError(f"unknown modality {modality!r}; known: {', '.join(MODALITIES)}")
    known = CATALOGUE[modality or drawn]
    if findings is None:
        return Truth(seed, known.id, known.sample(choose))
    if len({finding.kind for finding in findings}) != len(findings):
        raise ValueError("each kind of finding may be given once; use its count")
    chosen = tuple(known.kind(finding.kind).complete(finding, choose) for finding in findings)
    return Truth(seed, known.id, chosen)


def draw(seed: int, modality: str | None = None, findings: Sequence[Finding] | None = None) -> Phantom:
    """The phantom of this seed: same arguments, same pixels.

    Args:
        seed: any integer ≥ 0.
        modality: one of MODALITIES; drawn from the seed if None.
        findings: what the picture must show (empty: a normal picture); drawn from the seed if None.
            Attributes left None that the kind has are drawn.

    Raises:
        ValueError: as `truth`.
    """
    shown = truth(seed, modality, findings)
    for attempt in range(_ANATOMIES):
        try:
            rng = np.random.default_rng([seed, 1, attempt])
            picture, mask = _MODULES[shown.modality].draw(rng, shown.findings)
        except NoRoom:
            continue  # this anatomy is too small for these findings; the next may not be
        return Phantom(seed, shown.modality, shown.findings, picture, mask)
    raise ValueError(f"no anatomy of {shown.modality} has room for these findings")
