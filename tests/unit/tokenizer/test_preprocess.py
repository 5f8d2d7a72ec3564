"""Preprocessing: exact steps, any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from services.tokenizer.limits import MAX_ASPECT
from services.tokenizer.preprocess import on_white, to_input, to_square
from tests.support.pictures import noise


def test_alpha_is_blended_on_white_and_cut_off() -> None:
    pixels = noise(300, 9, 4)
    expected = np.empty((300, 9, 3), np.uint8)
    for y, x, c in np.ndindex(300, 9, 3):
        alpha = pixels[y, x, 3] / 255.0
        expected[y, x, c] = int((1.0 - alpha) * 255.0 + alpha * float(pixels[y, x, c]))
    assert np.array_equal(on_white(pixels), expected)


def test_opaque_picture_of_the_right_size_is_unchanged() -> None:
    pixels = noise(16, 16)
    assert np.array_equal(to_square(pixels, 16), pixels)


@pytest.mark.parametrize(("height", "width"), [(40, 20), (20, 40)])
def test_the_centre_of_the_long_side_is_kept(height: int, width: int) -> None:
    pixels = noise(height, width)
    top, left = (height - 20) // 2, (width - 20) // 2
    assert np.array_equal(to_square(pixels, 20), pixels[top : top + 20, left : left + 20])


def test_resampling_is_lanczos() -> None:
    pixels = noise(37, 53)
    resized = Image.fromarray(pixels).resize((round(53 * 16 / 37), 16), Image.Resampling.LANCZOS)
    left = (resized.width - 16) // 2
    assert np.array_equal(to_square(pixels, 16), np.asarray(resized)[:, left : left + 16])


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 120), st.integers(1, MAX_ASPECT), st.booleans(), st.sampled_from([3, 4]))
def test_every_size_becomes_the_square(short: int, aspect: int, tall: bool, channels: int) -> None:
    height, width = (short * aspect, short) if tall else (short, short * aspect)
    square = to_square(noise(height, width, channels), 32)
    assert square.shape == (32, 32, 3)
    assert square.dtype == np.uint8


def test_input_is_scaled_to_minus_one_to_one_channels_first() -> None:
    squares = [noise(4, 4), np.stack([np.full((4, 4), v, np.uint8) for v in (0, 128, 255)], axis=2)]
    values = to_input(squares)
    assert values.shape == (2, 3, 4, 4)
    assert values.dtype == np.float32
    assert values[1, :, 0, 0].tolist() == [-1.0, np.float32(128 / 255 * 2 - 1), 1.0]
    assert np.array_equal(values[0, 2], (squares[0][..., 2] / 255.0 * 2.0 - 1.0).astype(np.float32))
