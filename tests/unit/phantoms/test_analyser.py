"""Reading findings back from pixels: real, degraded and meaningless pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from evaluation.phantoms.analyser import analyse, findings_present
from evaluation.phantoms.catalogue import CATALOGUE, MODALITIES, draw
from evaluation.phantoms.core import Finding, Phantom, Picture, held_out

COUNT = 60


@pytest.fixture(scope="module", params=MODALITIES)
def phantoms(request: pytest.FixtureRequest) -> list[Phantom]:
    return [draw(seed, request.param) for seed in held_out(700, COUNT)]


def blurred(picture: Picture, rng: np.random.Generator) -> Picture:
    levels = ndimage.gaussian_filter(picture.astype(np.float32), (1, 1, 0)) + rng.normal(0, 4, picture.shape)
    return np.clip(levels + 0.5, 0, 255).astype(np.uint8)


def shifted(picture: Picture, rng: np.random.Generator) -> Picture:
    """Brightness, contrast and each colour changed by up to 5 %."""
    levels = picture.astype(np.float32)
    levels = (levels - levels.mean()) * rng.uniform(0.95, 1.05) + levels.mean()
    levels = levels * rng.uniform(0.95, 1.05, 3) + 255 * rng.uniform(-0.05, 0.05)
    return np.clip(levels + 0.5, 0, 255).astype(np.uint8)


def compressed(picture: Picture, rng: np.random.Generator) -> Picture:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file).convert("RGB"))


def exact(phantom: Phantom, found: tuple[Finding, ...]) -> bool:
    return len(found) == len(phantom.findings) and set(found) == set(phantom.findings)


def test_every_attribute_is_read_from_real_phantoms(phantoms: list[Phantom]) -> None:
    wrong = [p.seed for p in phantoms if not exact(p, analyse(p.picture, p.modality))]
    assert len(wrong) <= 0.03 * COUNT, wrong


@pytest.mark.parametrize("degrade", [blurred, shifted, compressed])
def test_degraded_phantoms_are_still_read(phantoms: list[Phantom], degrade) -> None:
    rng = np.random.default_rng(7)
    wrong = [p.seed for p in phantoms if not exact(p, analyse(degrade(p.picture, rng), p.modality))]
    assert len(wrong) <= 0.07 * COUNT, wrong


@pytest.mark.parametrize(
    ("modality", "kind"), [(known.id, kind) for known in CATALOGUE.values() for kind in known.kinds], ids=str
)
def test_every_value_of_every_attribute_is_told_apart(modality: str, kind) -> None:
    for side in ("left", "right") if kind.sided else (None,):
        for size in ("small", "large") if kind.sized else (None,):
            for count in kind.counts or (None,):
                wanted = Finding(kind.name, side, size, count)
                seeds = held_out(701, 4)
                right = sum(
                    analyse(draw(seed, modality, [wanted]).picture, modality) == (wanted,) for seed in seeds
                )
                assert right >= 3, wanted


def test_pictures_of_other_sizes_are_resampled() -> None:
    wanted = Finding("tumor", "left", "large")
    picture = draw(5, "brain_mri", [wanted]).picture
    for side in (80, 192):
        resized = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))
        assert analyse(resized, "brain_mri") == (wanted,)


def test_reading_leaves_the_picture_unchanged(phantoms: list[Phantom]) -> None:
    picture = phantoms[0].picture.copy()
    analyse(picture, phantoms[0].modality)
    assert np.array_equal(picture, phantoms[0].picture)


@pytest.mark.parametrize("modality", MODALITIES)
def test_meaningless_pictures_are_read_without_failing(modality: str) -> None:
    rng = np.random.default_rng(0)
    kinds = {kind.name for kind in CATALOGUE[modality].kinds}
    for picture in (
        np.zeros((96, 96, 3), np.uint8),
        np.full((96, 96, 3), 255, np.uint8),
        rng.integers(0, 256, (96, 96, 3), dtype=np.uint8),
        rng.integers(0, 256, (1, 5, 3), dtype=np.uint8),
    ):
        assert {finding.kind for finding in analyse(picture, modality)} <= kinds


@pytest.mark.parametrize(
    ("picture", "modality"),
    [
        (np.zeros((96, 96, 3), np.uint8), "ultrasound"),
        (np.zeros((96, 96, 3), np.float32), "fundus"),
        (np.zeros((96, 96), np.uint8), "fundus"),
        (np.zeros((0, 96, 3), np.uint8), "fundus"),
    ],
)
def test_what_is_no_picture_of_a_known_modality_is_refused(picture: np.ndarray, modality: str) -> None:
    with pytest.raises(ValueError, match=r"unknown modality|picture must be"):
        analyse(picture, modality)


MASS = Finding("mass", "left", "small")
EFFUSION = Finding("pleural effusion", "right", "large")


@pytest.mark.parametrize(
    ("described", "found", "score"),
    [
        ([], [], (1, 1)),
        ([], [MASS], (0, 1)),
        ([MASS], [], (0, 1)),
        ([MASS], [MASS], (1, 1)),
        ([MASS], [Finding("mass", "right", "small")], (0, 1)),
        ([MASS], [Finding("mass", "left", "large")], (0, 1)),
        ([Finding("mass")], [MASS], (1, 1)),
        ([Finding("mass", "left")], [MASS], (1, 1)),
        ([MASS, EFFUSION], [EFFUSION], (1, 2)),
        ([EFFUSION, MASS], [MASS, EFFUSION], (2, 2)),
        ([Finding("hemorrhage", count=2)], [Finding("hemorrhage", count=3)], (0, 1)),
        ([Finding("hemorrhage")], [Finding("hemorrhage", count=3)], (1, 1)),
        ([Finding("mass"), MASS], [MASS, Finding("mass", "right", "large")], (2, 2)),
        ([Finding("mass"), Finding("mass")], [MASS], (1, 2)),
    ],
)
def test_described_findings_are_counted_when_found(described, found, score) -> None:
    assert findings_present(described, found) == score
