"""Kappa, alpha, rankings and regions against published examples, scipy and naive definitions."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import kendalltau, spearmanr

from annotation.agreement.alpha import Level, krippendorff_alpha
from annotation.agreement.kappa import Weights, cohen_kappa
from annotation.agreement.ranking import concordance, kendall_w
from annotation.agreement.regions import iou, matched
from annotation.core import Region
from services.errors import InvalidImage

_ = None
# K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C/E: four observers, twelve units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]
UNITS = [[row[unit] for row in OBSERVERS if row[unit] is not None] for unit in range(12)]


@pytest.mark.parametrize(
    ("level", "published"),
    [(Level.NOMINAL, 0.743), (Level.ORDINAL, 0.815), (Level.INTERVAL, 0.849), (Level.RATIO, 0.797)],
)
def test_alpha_is_the_published_one(level, published):
    found = krippendorff_alpha(UNITS, level, resamples=0)
    assert found.value == pytest.approx(published, abs=0.0005)
    assert found.units == 11  # the twelfth was judged by one observer


def test_alpha_of_two_observers_and_binary_data_is_the_published_one():
    # The same text, section A: ten articles, "Meg" and "Owen".
    meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha(list(zip(meg, owen, strict=True)), resamples=0).value == pytest.approx(
        0.095, abs=0.0005
    )


def naive_alpha(units, level):
    """By pairs of values, as the definition reads: D_o within units, D_e over all values together."""
    units = [unit for unit in units if len(unit) > 1]
    pooled = [value for unit in units for value in unit]

    def distance(a, b):
        if level is Level.NOMINAL:
            return float(a != b)
        if level is Level.INTERVAL:
            return float(a - b) ** 2
        if level is Level.RATIO:
            return ((a - b) / (a + b)) ** 2 if a + b else 0.0
        low, high = sorted((a, b))
        between = sum(low <= value <= high for value in pooled)
        return (between - (pooled.count(low) + pooled.count(high)) / 2) ** 2 if a != b else 0.0

    n = len(pooled)
    observed = sum(
        distance(a, b) / (len(unit) - 1) for unit in units for a, b in itertools.permutations(unit, 2)
    )
    expected = sum(distance(a, b) for a, b in itertools.permutations(pooled, 2)) / (n - 1)
    return 1 - observed / expected if expected else None


@settings(max_examples=60, deadline=None)
@given(
    units=st.lists(st.lists(st.integers(0, 5), max_size=5), min_size=1, max_size=8),
    level=st.sampled_from(list(Level)),
)
def test_alpha_is_what_its_definition_says(units, level):
    found = krippendorff_alpha(units, level, resamples=0).value
    if not any(len(unit) > 1 for unit in units) or (expected := naive_alpha(units, level)) is None:
        assert found is None
    else:
        assert found == pytest.approx(expected, abs=1e-9)


def test_alphas_interval_covers_the_truth_and_narrows_with_more_units():
    rng = np.random.default_rng(3)

    def raters(count):
        truth = rng.integers(0, 3, count)
        return [[int(t) if rng.random() < 0.8 else int(rng.integers(0, 3)) for _ in range(3)] for t in truth]

    true = krippendorff_alpha(raters(20_000), resamples=0).value
    found = [krippendorff_alpha(raters(60), resamples=200, seed=trial) for trial in range(60)]
    covered = sum(one.ci95[0] <= true <= one.ci95[1] for one in found)
    assert covered >= 52  # of 60; 57 expected
    few, many = found[0].ci95, krippendorff_alpha(raters(600), resamples=200).ci95
    assert many[1] - many[0] < (few[1] - few[0]) / 2


def test_alpha_is_undefined_without_two_values_of_a_unit_or_without_variation():
    assert krippendorff_alpha([]).value is None
    assert krippendorff_alpha([["a"], ["b"]]).value is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]).value is None


@pytest.mark.parametrize(
    ("level", "units"),
    [
        (Level.INTERVAL, [["a", "b"]]),
        (Level.ORDINAL, [[1, float("nan")]]),
        (Level.RATIO, [[-1, 2]]),
        (Level.NOMINAL, [[n, n + 1] for n in range(0, 400, 2)]),
    ],
)
def test_alpha_refuses_values_that_its_level_does_not_allow(level, units):
    with pytest.raises(ValueError, match="values"):
        krippendorff_alpha(units, level)


def test_kappa_is_the_published_one():
    # J. Cohen, Psychol. Bull. 70 (1968) 213-220, table 1: 200 cases by two clinicians.
    table = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]
    first = [i for i, row in enumerate(table) for count in row for _ in range(count)]
    second = [j for row in table for j, count in enumerate(row) for _ in range(count)]
    assert cohen_kappa(first, second) == pytest.approx(0.492, abs=0.0005)


def naive_kappa(a, b, power):
    """Quadratic kappa and its like by pairs: mean distance within items over mean distance across them."""
    distance = (lambda x, y: float(x != y)) if power == 0 else (lambda x, y: float(abs(x - y) ** power))
    observed = sum(map(distance, a, b)) / len(a)
    expected = sum(distance(x, y) for x in a for y in b) / len(a) ** 2
    return 1 - observed / expected if expected else None


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20),
    weights=st.sampled_from(list(Weights)),
)
def test_kappa_is_what_its_definition_says(pairs, weights):
    a, b = zip(*pairs, strict=True)
    power = {Weights.NONE: 0, Weights.LINEAR: 1, Weights.QUADRATIC: 2}[weights]
    found, expected = cohen_kappa(a, b, weights=weights, categories=range(5)), naive_kappa(a, b, power)
    assert found == (pytest.approx(expected, abs=1e-9) if expected is not None else None)


def test_weighted_kappa_needs_the_order_of_names():
    with pytest.raises(ValueError, match="categories"):
        cohen_kappa(["none", "major"], ["none", "minor"], weights=Weights.LINEAR)
    found = cohen_kappa(
        ["none", "major"],
        ["none", "minor"],
        weights=Weights.LINEAR,
        categories=["none", "minor", "major"],
    )
    assert found == pytest.approx(0.5)
    with pytest.raises(ValueError, match="none of the"):
        cohen_kappa(["none"], ["huge"], categories=["none"])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_rankings_agree_as_scipy_says(data):
    n = data.draw(st.integers(2, 6))
    rankings = data.draw(st.lists(st.permutations(range(n)), min_size=2, max_size=5))
    places = [np.argsort(ranking) for ranking in rankings]
    pairs = list(itertools.combinations(range(len(rankings)), 2))
    tau = kendalltau(places[0], places[1]).statistic
    assert concordance(rankings[0], rankings[1]) == pytest.approx((tau + 1) / 2)
    # The mean Spearman correlation of all pairs is (mW − 1) / (m − 1).
    spearman = np.mean([spearmanr(places[a], places[b]).statistic for a, b in pairs])
    m = len(rankings)
    assert (m * kendall_w(rankings) - 1) / (m - 1) == pytest.approx(spearman, abs=1e-9)


def test_rankings_that_leave_one_out_are_refused():
    with pytest.raises(ValueError, match="every alternative"):
        concordance([0, 1, 1], [0, 1, 2])


def box(x, y, width, height, label="mass", picture="p", mask=None):
    return Region(picture, label, x, y, width, height, mask)


def png(array):
    out = io.BytesIO()
    Image.fromarray(array.astype(np.uint8) * 255).save(out, "PNG")
    return out.getvalue()


def test_overlap_of_rectangles_is_shared_over_covered_area():
    assert iou(box(0, 0, 0.5, 0.5), box(0, 0, 0.5, 0.5)) == 1
    assert iou(box(0, 0, 0.5, 0.5), box(0.25, 0, 0.5, 0.5)) == pytest.approx(1 / 3)
    assert iou(box(0, 0, 0.2, 0.2), box(0.5, 0.5, 0.2, 0.2)) == 0
    assert iou(box(0, 0, 0, 0), box(0, 0, 0, 0)) == 0


def test_a_brush_stroke_is_compared_with_a_rectangle_pixel_by_pixel():
    mask = np.zeros((40, 80), bool)
    mask[10:30, 20:40] = True
    stroke = box(0.25, 0.25, 0.25, 0.5, mask=png(mask))
    assert iou(stroke, box(0.25, 0.25, 0.25, 0.5)) == 1
    assert iou(box(0.25, 0.25, 0.5, 0.5), stroke) == pytest.approx(0.5)
    other = np.zeros((40, 80), bool)
    other[20:40, 20:40] = True
    assert iou(stroke, box(0.25, 0.5, 0.25, 0.5, mask=png(other))) == pytest.approx(1 / 3)


@pytest.mark.parametrize("bad", [b"", b"GIF89a", png(np.ones((4, 4)))[:30]])
def test_a_mask_that_is_no_picture_is_named(bad):
    with pytest.raises(InvalidImage, match="mask"):
        iou(box(0, 0, 1, 1, mask=bad), box(0, 0, 1, 1))


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(InvalidImage, match="size"):
        iou(box(0, 0, 1, 1, mask=png(np.ones((4, 4)))), box(0, 0, 1, 1, mask=png(np.ones((5, 4)))))


def test_each_region_matches_one_other_of_its_label():
    here, near, far = box(0, 0, 0.4, 0.4), box(0.05, 0, 0.4, 0.4), box(0.6, 0.6, 0.3, 0.3)
    assert matched([here, far], [near, far], 0.5) == 2
    assert matched([here, near], [here], 0.5) == 1
    assert matched([here], [box(0, 0, 0.4, 0.4, label="cyst")], 0.5) == 0
    assert matched([here], [box(0, 0, 0.4, 0.4, picture="q")], 0.5) == 0
    assert matched([], [here], 0.5) == 0
