"""What a phantom is: modalities, kinds of finding, and the picture with its truth.

Sides are the patient's: in chest, brain and abdominal pictures the patient's left is on the right
side of the picture, as radiologists hang films. Fundus and histology findings have no side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

SIZE = 96
"""Side of every phantom in pixels. Sizes of findings are set in cells of SIZE / 12 pixels."""

NORMAL_SHARE = 0.37
SIDES = ("left", "right")
SIZES = ("small", "large")

TRAIN_SEEDS = range(10**9)
_HELD_OUT_STRIDE = 10**6

Picture = NDArray[np.uint8]
"""uint8 [height, width, 3], RGB."""
Field = NDArray[np.float32]
"""float32 [height, width]; intensities and coverages lie in 0…1."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True, order=True)
class Finding:
    """One abnormality. Attributes that its kind does not have are None."""

    kind: str
    side: str | None = None
    size: str | None = None
    count: int | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of finding and the attributes that tell two of them apart.

    `synonyms` are what a user may type for it; `meaning` is one plain sentence.
    """

    name: str
    plural: str
    meaning: str
    article: str = "a"
    sided: bool = False
    sized: bool = False
    counts: tuple[int, ...] = ()
    synonyms: tuple[str, ...] = ()

    def sample(self, rng: np.random.Generator) -> Finding:
        """A finding of this kind with every attribute drawn evenly."""
        return Finding(
            self.name,
            side=str(rng.choice(SIDES)) if self.sided else None,
            size=str(rng.choice(SIZES)) if self.sized else None,
            count=int(rng.choice(self.counts)) if self.counts else None,
        )

    def complete(self, finding: Finding, rng: np.random.Generator) -> Finding:
        """The same finding with missing attributes drawn. Raises ValueError on one that does not belong."""
        drawn = self.sample(rng)
        for field, allowed in (
            ("side", SIDES if self.sided else ()),
            ("size", SIZES if self.sized else ()),
            ("count", self.counts),
        ):
            value = getattr(finding, field)
            if value is not None and value not in allowed:
                raise ValueError(f"{self.name} cannot have {field}={value!r}; allowed: {allowed or 'none'}")
            if value is not None:
                drawn = replace(drawn, **{field: value})
        return drawn


@dataclass(frozen=True)
class Modality:
    """A way of taking pictures: its names, the part of the body shown, and its kinds of finding."""

    id: str
    name: str
    organ: str
    kinds: tuple[Kind, ...]
    synonyms: tuple[str, ...] = ()
    article: str = "a"
    pairs: float = 0.0
    """Share of the abnormal pictures that show two different findings."""

    def kind(self, name: str) -> Kind:
        for kind in self.kinds:
            if kind.name == name:
                return kind
        raise ValueError(f"{self.id} has no finding {name!r}; it has {[kind.name for kind in self.kinds]}")

    def sample(self, rng: np.random.Generator) -> tuple[Finding, ...]:
        """The findings of one picture: none, one, or (where `pairs` allows) two on different sides."""
        if rng.random() < NORMAL_SHARE:
            return ()
        count = 2 if rng.random() < self.pairs else 1
        chosen = rng.choice(len(self.kinds), size=count, replace=False)
        return separated([self.kinds[int(index)].sample(rng) for index in chosen])


@dataclass(frozen=True)
class Truth:
    """What a picture shows, without the picture: all that its texts need."""

    seed: int
    modality: str
    findings: tuple[Finding, ...]

    @property
    def normal(self) -> bool:
        return not self.findings

    def finding(self, kind: str) -> Finding | None:
        return next((finding for finding in self.findings if finding.kind == kind), None)


@dataclass(frozen=True)
class Phantom(Truth):
    """A drawn picture with its truth.

    `picture` is uint8 [SIZE, SIZE, 3] RGB; `mask` is bool [SIZE, SIZE], true on pixels of findings.
    """

    picture: Picture
    mask: Mask


def separated(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Two sided findings never share a side: one would hide the other."""
    if len(findings) == 2 and findings[0].side is not None and findings[0].side == findings[1].side:
        other = SIDES[1 - SIDES.index(findings[0].side)]
        return findings[0], replace(findings[1], side=other)
    return tuple(findings)


def held_out(seed: int, count: int) -> range:
    """`count` seeds that training never uses; different `seed` below 10**6 give disjoint ranges.

    Raises ValueError if `count` exceeds 10**6 or `seed` is negative.
    """
    if seed < 0 or not 0 <= count <= _HELD_OUT_STRIDE:
        raise ValueError(f"seed must be ≥ 0 and count in 0…{_HELD_OUT_STRIDE}; got {seed}, {count}")
    start = TRAIN_SEEDS.stop + seed * _HELD_OUT_STRIDE
    return range(start, start + count)
