"""Drawing from a seed: repeatable, varied, and showing what was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.phantoms import CATALOGUE, MODALITIES, SIZE, TRAIN_SEEDS, Finding, Kind, draw, held_out, truth

CELL = SIZE // 12


def every_finding(kind: Kind) -> list[Finding]:
    return [
        Finding(kind.name, side, size, count)
        for side in (("left", "right") if kind.sided else (None,))
        for size in (("small", "large") if kind.sized else (None,))
        for count in kind.counts or (None,)
    ]


@pytest.mark.parametrize("modality", MODALITIES)
def test_one_seed_always_gives_the_same_phantom(modality: str) -> None:
    first, second = draw(31, modality), draw(31, modality)
    assert first.findings == second.findings
    assert np.array_equal(first.picture, second.picture)
    assert np.array_equal(first.mask, second.mask)


@pytest.mark.parametrize("modality", MODALITIES)
def test_anatomy_varies_from_seed_to_seed(modality: str) -> None:
    pictures = [draw(seed, modality, []).picture.astype(np.float32) for seed in range(6)]
    for index, picture in enumerate(pictures):
        for other in pictures[:index]:
            assert np.abs(picture - other).mean() > 3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**63))
def test_any_seed_gives_a_whole_phantom_whose_truth_needs_no_drawing(seed: int) -> None:
    phantom = draw(seed)
    assert phantom.picture.dtype == np.uint8
    assert phantom.picture.shape == (SIZE, SIZE, 3)
    assert phantom.mask.dtype == np.bool_
    assert phantom.mask.shape == (SIZE, SIZE)
    assert phantom.mask.any() != phantom.normal
    assert truth(seed).findings == phantom.findings
    assert truth(seed).modality == phantom.modality


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_finding_covers_at_least_two_code_cells(modality: str) -> None:
    for kind in CATALOGUE[modality].kinds:
        for finding in every_finding(kind):
            for seed in range(3):
                covered = int(draw(seed, modality, [finding]).mask.sum())
                assert covered >= (finding.count or 2) * CELL * CELL, (finding, seed, covered)


@pytest.mark.parametrize("modality", MODALITIES)
def test_small_and_large_findings_leave_a_gap(modality: str) -> None:
    for kind in (kind for kind in CATALOGUE[modality].kinds if kind.sized):
        side = "left" if kind.sided else None
        areas = {
            size: [
                int(draw(seed, modality, [Finding(kind.name, side, size)]).mask.sum()) for seed in range(12)
            ]
            for size in ("small", "large")
        }
        assert min(areas["large"]) > 1.5 * max(areas["small"]), (kind.name, areas)


@pytest.mark.parametrize("modality", MODALITIES)
def test_patients_left_is_on_the_right_of_the_picture(modality: str) -> None:
    for kind in (kind for kind in CATALOGUE[modality].kinds if kind.sided):
        for side, sign in (("left", 1), ("right", -1)):
            for seed in range(4):
                columns = np.nonzero(draw(seed, modality, [Finding(kind.name, side)]).mask)[1]
                assert sign * (columns.mean() - SIZE / 2) > 0, (kind.name, side, seed)


def test_between_35_and_40_percent_of_the_pictures_are_normal() -> None:
    normal = sum(truth(seed).normal for seed in range(4000))
    assert 0.345 < normal / 4000 < 0.395


def test_modalities_and_kinds_are_evenly_spread() -> None:
    shown = [truth(seed) for seed in range(4000)]
    for modality, known in CATALOGUE.items():
        here = [one for one in shown if one.modality == modality]
        assert 0.17 < len(here) / len(shown) < 0.23
        for kind in known.kinds:
            share = sum(one.finding(kind.name) is not None for one in here) / len(here)
            assert share > 0.10, (modality, kind.name)


def test_two_findings_at_once_occur_in_chest_films_and_never_share_a_side() -> None:
    pairs = [one for one in (truth(seed, "chest_xray") for seed in range(1000)) if len(one.findings) == 2]
    assert len(pairs) > 100
    for pair in pairs:
        first, second = (finding.side for finding in pair.findings)
        assert first is None or first != second
        assert pair.findings[0].kind != pair.findings[1].kind


def test_missing_attributes_are_completed_and_given_ones_kept() -> None:
    sides = set()
    for seed in range(20):
        (finding,) = draw(seed, "chest_xray", [Finding("mass", size="large")]).findings
        assert finding.size == "large"
        sides.add(finding.side)
    assert sides == {"left", "right"}


@pytest.mark.parametrize(
    ("modality", "findings", "message"),
    [
        ("ultrasound", None, "unknown modality"),
        ("brain_mri", [Finding("pneumothorax")], "no finding"),
        ("brain_mri", [Finding("hydrocephalus", side="left")], "cannot have side"),
        ("brain_mri", [Finding("tumor", size="huge")], "cannot have size"),
        ("fundus", [Finding("hemorrhage", count=9)], "cannot have count"),
        ("fundus", [Finding("exudate"), Finding("exudate")], "once"),
    ],
)
def test_what_cannot_be_drawn_is_refused(modality: str, findings: list[Finding], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(0, modality, findings)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6), st.integers(1, 10**6))
def test_held_out_seeds_are_disjoint_from_training_and_from_each_other(
    first: int, second: int, m: int, n: int
) -> None:
    one, other = held_out(first, m), held_out(second, n)
    assert len(one) == m
    assert one.start >= TRAIN_SEEDS.stop
    if first != second:
        assert one.stop <= other.start or other.stop <= one.start


@pytest.mark.parametrize(("seed", "count"), [(-1, 5), (0, -1), (0, 10**6 + 1)])
def test_held_out_seeds_out_of_range_are_refused(seed: int, count: int) -> None:
    with pytest.raises(ValueError, match="seed must be"):
        held_out(seed, count)
