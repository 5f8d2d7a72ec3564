"""Marks on pictures: Label Studio's strokes and percents to masks and shares."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from annotation.labelstudio import regions, rle
from services.errors import InvalidInput
from tests.support.labelstudio import encode_rle, rectangle, stroke

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=24))
SHARE = st.floats(0, 100, allow_nan=False)


@given(MASKS, st.lists(st.integers(1, 16), min_size=4, max_size=4))
def test_a_stroke_is_read_as_it_was_coded_whatever_the_run_fields(mask: Any, lengths: list[int]) -> None:
    code = encode_rle(mask, sorted(lengths))
    assert np.array_equal(rle.decode(code, mask.shape[1], mask.shape[0]), mask)


@settings(max_examples=200)
@given(MASKS, st.data())
def test_a_damaged_stroke_is_refused_or_some_mask_of_the_right_size(mask: Any, data: st.DataObject) -> None:
    code = encode_rle(mask)
    for _ in range(data.draw(st.integers(1, 4))):
        code[data.draw(st.integers(0, len(code) - 1))] = data.draw(st.integers(0, 255))
    code = code[: data.draw(st.integers(0, len(code)))]
    with suppress(InvalidInput):
        assert rle.decode(code, mask.shape[1], mask.shape[0]).shape == mask.shape


@pytest.mark.parametrize("code", [[], [256], [-1], ["x"], [None], [[1]], [0] * 100_000], ids=str)
def test_what_is_no_stroke_is_refused(code: list[Any]) -> None:
    with pytest.raises(InvalidInput):
        rle.decode(code, 8, 8)


def test_a_stroke_that_claims_a_giant_picture_takes_no_memory() -> None:
    with pytest.raises(InvalidInput, match="pixels"):
        rle.decode([255] * 8, 1 << 20, 1 << 20)


def test_a_published_example_of_the_code() -> None:
    # 2 x 1 pixels, the second one painted; run fields of 3, 4, 8 and 16 bits: a run of 4 zeros, a run of 4 times 255.
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "100011" + "00000000" + "100011" + "11111111"
    bits += "0" * (-len(bits) % 8)
    code = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    assert rle.decode(code, 2, 1).tolist() == [[False, True]]


@given(MASKS)
def test_a_region_of_a_stroke_has_its_mask_and_its_box(mask: Any) -> None:
    found = regions.parse(stroke("s", "mass", mask), ["ab"])
    if not mask.any():
        assert found == []
        return
    (region,) = found
    with Image.open(BytesIO(region.mask or b"")) as image:
        assert image.mode == "L"
        pixels = np.asarray(image)
    assert set(np.unique(pixels)) <= {0, 255}
    assert np.array_equal(pixels == 255, mask)
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    assert region.x * width == pytest.approx(columns.min())
    assert region.y * height == pytest.approx(rows.min())
    assert (region.x + region.width) * width == pytest.approx(columns.max() + 1)
    assert (region.y + region.height) * height == pytest.approx(rows.max() + 1)


@given(SHARE, SHARE, st.floats(0.01, 100), st.floats(0.01, 100), st.floats(-720, 720))
def test_a_rectangle_stays_within_its_picture_or_is_refused(
    x: float, y: float, width: float, height: float, rotation: float
) -> None:
    marks = rectangle("r", "mass", (x, y, width, height), (640, 480))
    for mark in marks:
        mark["value"]["rotation"] = rotation
    try:
        (region,) = regions.parse(marks, ["ab"])
    except InvalidInput:
        return
    assert 0 <= region.x < region.x + region.width <= 1 + 1e-9
    assert 0 <= region.y < region.y + region.height <= 1 + 1e-9


def test_a_rectangle_in_percent_is_one_in_shares() -> None:
    (region,) = regions.parse(rectangle("r", "mass", (10, 20, 30, 40)), ["ab"])
    assert (region.picture, region.label, region.mask) == ("ab", "mass", None)
    assert (region.x, region.y, region.width, region.height) == pytest.approx((0.1, 0.2, 0.3, 0.4))


def test_a_turned_rectangle_becomes_the_box_around_it() -> None:
    marks = rectangle("r", "mass", (50, 50, 20, 10), (200, 100))
    for mark in marks:
        mark["value"]["rotation"] = 90
    (region,) = regions.parse(marks, ["ab"])
    # 40 x 10 px around (100, 50), turned clockwise by a quarter: 90 to 100 and 50 to 90.
    assert (region.x, region.y) == pytest.approx((0.45, 0.5))
    assert (region.width, region.height) == pytest.approx((0.05, 0.4))


@pytest.mark.parametrize(
    "change",
    [
        {"item_index": 1},
        {"item_index": -1},
        {"item_index": "0"},
        {"original_width": 0},
        {"original_width": None},
        {"value": {"x": 1, "y": 1, "width": 0, "height": 5}},
        {"value": {"x": 1, "y": 1, "width": float("nan"), "height": 5}},
        {"value": {"x": 101, "y": 1, "width": 5, "height": 5}},
        {"value": {"x": "1", "y": 1, "width": 5, "height": 5}},
    ],
    ids=str,
)
def test_a_region_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    shape, label = rectangle("r", "mass", (10, 10, 10, 10))
    with pytest.raises(InvalidInput):
        regions.parse([shape | change, label], ["ab"])


def test_regions_keep_the_order_in_which_they_were_drawn_and_their_own_pictures() -> None:
    second = [mark | {"item_index": 1} for mark in rectangle("b", "lesion", (1, 1, 5, 5))]
    found = regions.parse([*rectangle("a", "mass", (1, 1, 5, 5)), *second], ["p0", "p1"])
    assert [(region.picture, region.label) for region in found] == [("p0", "mass"), ("p1", "lesion")]


def test_a_region_without_a_label_has_an_empty_one() -> None:
    assert regions.parse(rectangle("a", "mass", (1, 1, 5, 5))[:1], ["p0"])[0].label == ""
