"""DICOM files are shown as a viewer shows them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from services.tokenizer.window import Window
from tests.support.dicom_files import (
    VALUES,
    grey,
    palette,
    read,
    segmented,
    table,
)
from tests.support.pictures import dicom, noise


def shown(value: float, function: str, center: float, width: float) -> int:
    """DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3, one value at a time, onto 0 to 255."""
    if function == "SIGMOID":
        exponent = -4 * (value - center) / width
        output = 255 / (1 + math.exp(exponent)) if exponent < 700 else 0.0
    elif function == "LINEAR_EXACT" or width < 1:
        if value <= center - width / 2:
            output = 0.0
        elif value > center + width / 2:
            output = 255.0
        else:
            output = ((value - center) / width + 0.5) * 255
    elif value <= center - 0.5 - (width - 1) / 2:
        output = 0.0
    elif value > center - 0.5 + (width - 1) / 2:
        output = 255.0
    else:
        output = ((value - (center - 0.5)) / (width - 1) + 0.5) * 255
    return math.floor(output + 0.5)


@st.composite
def grey_files(draw: st.DrawFn) -> tuple[bytes, Window | None, list[float]]:
    """A file of random attributes, a window of the caller's or none, and what must be shown (not yet rounded)."""
    allocated = draw(st.sampled_from([8, 16, 32]))
    stored = draw(st.integers(2, allocated))
    signed = draw(st.booleans())
    low, high = (-(1 << stored - 1), (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    values = draw(st.lists(st.integers(low, high), min_size=64, max_size=64))
    slope = draw(st.sampled_from([1.0, 2.0, 0.5, -1.0, 0.001]))
    intercept = draw(st.sampled_from([0.0, -1024.0, 3.25]))
    function = draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    inverted = draw(st.booleans())
    chosen = draw(st.sampled_from(["header", "given", "none"]))
    center, width = draw(st.integers(-2000, 70000)), draw(st.sampled_from([0.5, 1, 2, 255, 400.5, 65536]))
    attributes: dict[str, Any] = {"VOILUTFunction": function}
    if chosen != "none":
        attributes |= {"WindowCenter": [center, 9], "WindowWidth": [width, 9]}
    if chosen == "given":
        attributes |= {"WindowCenter": 1, "WindowWidth": 2}
    modality = [value * slope + intercept for value in values]
    if chosen != "none":
        expected = [float(shown(value, function, center, width)) for value in modality]
    elif stored == 8 and not signed:
        expected = [float(value) for value in values]
    else:
        span = max(modality) - min(modality)
        expected = [math.floor((v - min(modality)) / span * 255 + 0.5) if span else 0.0 for v in modality]
    mask = (1 << stored) - 1
    pixels = np.array([value & mask for value in values], f"<u{allocated // 8}").reshape(8, 8)
    data = dicom(
        pixels,
        draw(st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian])),
        BitsStored=stored,
        PixelRepresentation=int(signed),
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
        **attributes,
    )
    return (
        data,
        Window(center, width) if chosen == "given" else None,
        [255 - e if inverted else e for e in expected],
    )


@settings(max_examples=50, deadline=None)
@given(grey_files())
def test_grey_values_equal_the_standard_s_formulas(
    case: tuple[bytes, Window | None, list[float]],
) -> None:
    data, window, expected = case
    difference = grey(data, window).ravel().astype(int) - np.array(expected)
    # One level where a value falls on the boundary of rounding in another order of operations.
    assert abs(difference).max() <= 1
    assert (difference != 0).sum() <= 6


def test_a_lung_window_gives_known_values() -> None:
    values = np.array([[-2000, -1350, -1344, -600, 0, 143, 149, 3000]] * 8, np.int16)
    data = dicom((values + 1024).astype(np.int16), RescaleSlope=1, RescaleIntercept=-1024)
    assert grey(data, Window(-600, 1500))[0].tolist() == [0, 0, 1, 128, 230, 254, 255, 255]


def test_first_of_several_windows_is_used() -> None:
    both = dicom(VALUES, WindowCenter=[40, -600], WindowWidth=[400, 1500])
    assert np.array_equal(grey(both), grey(dicom(VALUES), Window(40, 400)))
    assert not np.array_equal(grey(both), grey(dicom(VALUES), Window(-600, 1500)))


@pytest.mark.parametrize("width", [0, -5, None])
def test_a_useless_window_in_the_header_is_ignored(width: float | None) -> None:
    assert np.array_equal(grey(dicom(VALUES, WindowCenter=10, WindowWidth=width)), grey(dicom(VALUES)))


def test_monochrome1_is_inverted() -> None:
    inverted = grey(dicom(VALUES, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(inverted, 255 - grey(dicom(VALUES)))


def test_eight_bit_pictures_without_a_window_are_shown_as_they_are() -> None:
    pixels = noise(10, 12, 1) // 2 + 40
    assert np.array_equal(grey(dicom(pixels)), pixels)


def test_padding_is_black_and_does_not_stretch_the_range() -> None:
    values = VALUES.copy()
    values[0] = -2000
    padded = grey(dicom(values, PixelPaddingValue=-2000))
    inner = VALUES[1:].astype(float)
    expected = np.floor((inner - inner.min()) / (inner.max() - inner.min()) * 255 + 0.5)
    assert np.array_equal(padded[1:], expected)
    assert padded[0].max() == 0
    inverted = grey(dicom(values, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1"))
    assert inverted[0].max() == 0


def test_padding_range_and_padding_of_the_other_signedness_are_understood() -> None:
    values = VALUES.copy()
    values[0, ::2], values[0, 1::2] = -2000, -1900
    ranged = grey(dicom(values, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1900))
    assert ranged[0].max() == 0
    data = dicom(values, PixelPaddingValue=-2000)
    unsigned = data.replace(b"\x28\x00\x20\x01SS", b"\x28\x00\x20\x01US")
    assert unsigned != data
    assert np.array_equal(grey(unsigned), grey(data))


def test_voi_lut_is_applied_and_a_given_window_goes_first() -> None:
    values = np.arange(128, dtype=np.uint16).reshape(8, 16)
    entries = (np.arange(100)[::-1] * 40).astype(np.uint16)
    data = dicom(values, VOILUTSequence=table(10, 12, entries), WindowCenter=5, WindowWidth=10)
    index = np.clip(values.astype(int) - 10, 0, 99)
    assert np.array_equal(grey(data), np.floor(entries[index] / 4095 * 255 + 0.5))
    assert np.array_equal(grey(data, Window(64, 128)), grey(dicom(values), Window(64, 128)))


def test_modality_lut_is_applied_before_the_window() -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8)
    entries = (np.arange(64) ** 2).astype(np.uint16)
    data = dicom(values, ModalityLUTSequence=table(0, 16, entries, ModalityLUTType="US"))
    squared = dicom(values**2)
    assert np.array_equal(grey(data, Window(1000, 3000)), grey(squared, Window(1000, 3000)))
    assert np.array_equal(grey(data), grey(squared))


def test_unused_high_bits_are_ignored() -> None:
    values = (VALUES.view(np.uint16) & 0x0FFF).astype(np.uint16)
    assert np.array_equal(grey(dicom(values | 0xA000, BitsStored=12)), grey(dicom(values, BitsStored=12)))


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_is_read_in_both_planar_configurations(planar: int) -> None:
    pixels = noise(10, 12)
    stored = pixels if planar == 0 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    data = dicom(pixels, PlanarConfiguration=planar, PixelData=stored.tobytes())
    assert np.array_equal(read(data), pixels)


def test_16_bit_rgb_is_scaled_by_its_stored_bits() -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (8, 8, 3), np.uint16)
    assert np.array_equal(read(dicom(pixels, BitsStored=12)), np.floor(pixels / 4095 * 255 + 0.5))


@pytest.mark.parametrize("name", ["YBR_FULL", "YBR_FULL_422"])
def test_ybr_is_converted(name: str) -> None:
    pixels = np.repeat(noise(8, 6), 2, axis=1)
    ybr = np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    stored = ybr if name == "YBR_FULL" else halved(ybr)
    converted = read(dicom(pixels, PhotometricInterpretation=name, PixelData=stored.tobytes()))
    assert abs(converted.astype(int) - pixels).max() <= 3


def halved(ybr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two luma samples, then the chroma of the first."""
    pairs = ybr.reshape(-1, 2, 3)
    return np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], axis=1)


def test_palette_is_looked_up() -> None:
    pixels = noise(10, 12, 1)
    attributes = palette()
    table = np.stack(
        [
            np.frombuffer(attributes[f"{c}PaletteColorLookupTableData"], "<u2")
            for c in ("Red", "Green", "Blue")
        ],
        1,
    )
    assert np.array_equal(read(dicom(pixels, **attributes)), np.floor(table[pixels] / 65535 * 255 + 0.5))


def test_segmented_palette_is_expanded() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    # One discrete entry of 0, then a ramp of 255 up to full scale.
    picture = read(dicom(pixels, **segmented(0, 1, 0, 1, 255, 65535)))
    assert abs(picture[..., 0].astype(int) - pixels).max() <= 1


def test_float_pixel_data_is_read() -> None:
    values = np.linspace(-3, 5, 64, dtype=np.float32).reshape(8, 8)
    data = dicom(
        values, PixelData=None, FloatPixelData=values.tobytes(), BitsStored=None, PixelRepresentation=None
    )
    assert np.array_equal(grey(data), np.floor((values.astype(float) + 3) / 8 * 255 + 0.5))


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_uncompressed_syntaxes_are_equal(syntax: str) -> None:
    assert np.array_equal(grey(dicom(VALUES, syntax)), grey(dicom(VALUES)))


def test_big_endian_is_read() -> None:
    data = dicom(VALUES, ExplicitVRBigEndian, PixelData=VALUES.astype(">i2").tobytes())
    assert np.array_equal(grey(data), grey(dicom(VALUES)))


def test_a_file_whose_preamble_is_a_tiff_header_is_read_as_dicom() -> None:
    data = dicom(VALUES)
    assert np.array_equal(grey(b"II*\0" + data[4:]), grey(data))


def test_a_file_without_preamble_is_read() -> None:
    data = dicom(VALUES)
    assert np.array_equal(grey(data[132:]), grey(data))
    assert np.array_equal(grey(data[128:]), grey(data))
