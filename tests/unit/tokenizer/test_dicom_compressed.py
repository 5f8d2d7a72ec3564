"""Compressed DICOM: the same picture as uncompressed, and damaged or contradictory streams refused."""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from services.errors import InvalidImage
from services.tokenizer.window import Window
from tests.support.dicom_files import (
    VALUES,
    compressed,
    gdcm_frame,
    grey,
    read,
    refused,
)
from tests.support.pictures import dicom, encode, noise


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize(
    "pixels",
    [noise(20, 24, 1), VALUES, VALUES.view(np.uint16), noise(20, 24)],
    ids=["grey8", "signed16", "unsigned16", "rgb"],
)
def test_lossless_compression_gives_the_same_picture(syntax: str, pixels: NDArray[Any]) -> None:
    assert np.array_equal(read(compressed(pixels, syntax)), read(dicom(pixels)))


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, RLELossless])
def test_compressed_ybr_is_converted(syntax: str) -> None:
    ybr = np.asarray(Image.fromarray(noise(20, 24)).convert("YCbCr"))
    converted = read(compressed(ybr, syntax, PhotometricInterpretation="YBR_FULL"))
    assert np.array_equal(converted, read(dicom(ybr, PhotometricInterpretation="YBR_FULL")))


@pytest.mark.parametrize("colour", [False, True])
def test_baseline_jpeg_is_near_the_picture(colour: bool) -> None:
    smooth = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (24, 1))
    pixels = np.stack([smooth, smooth[:, ::-1], smooth // 2], axis=2) if colour else smooth
    frame = encode(pixels, "JPEG", quality=95, subsampling=0)
    name = "YBR_FULL" if colour else "MONOCHROME2"
    data = dicom(pixels, JPEGBaseline8Bit, PixelData=encapsulate([frame]), PhotometricInterpretation=name)
    expected = pixels if colour else np.repeat(pixels[..., None], 3, 2)
    assert abs(read(data).astype(int) - expected).mean() < 3


def test_12_bit_jpeg_is_near_its_jpeg_2000_twin() -> None:
    pictures = []
    for name in ("JPEG-lossy.dcm", "JPEG2000.dcm"):
        with open(str(get_testdata_file(name)), "rb") as file:
            pictures.append(grey(file.read(), Window(120, 240)).astype(int))
    assert abs(pictures[0] - pictures[1]).mean() < 12


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_compressed_frame_of_another_size_is_refused(syntax: str) -> None:
    frame = gdcm_frame(noise(64, 64, 1), syntax)
    data = dicom(noise(20, 24, 1), syntax, PixelData=encapsulate([frame]))
    assert "contradicts" in refused(data)


def test_jpeg_2000_of_countless_tiles_is_refused_with_the_limit() -> None:
    frame = bytearray(gdcm_frame(noise(100, 100, 1), JPEG2000Lossless))
    frame[24:32] = struct.pack(">II", 1, 1)
    data = dicom(noise(100, 100, 1), JPEG2000Lossless, PixelData=encapsulate([bytes(frame)]))
    assert "4096" in refused(data)


def test_rle_bomb_is_refused() -> None:
    header = struct.pack("<16I", 1, 64, *[0] * 14)
    bomb = header + b"\x81\x00" * 500_000
    assert "RLE" in refused(dicom(noise(20, 24, 1), RLELossless, PixelData=encapsulate([bomb])))


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_damaged_streams_that_abort_gdcm_do_not_end_this_process(syntax: str) -> None:
    pixels = noise(20, 24, 1)
    frame = gdcm_frame(pixels, syntax)
    outcomes = set()
    for seed in range(12):
        chance = random.Random(seed)
        damaged = bytearray(frame)
        for _ in range(6):
            damaged[chance.randrange(2, len(frame))] = chance.randrange(256)
        try:
            read(dicom(pixels, syntax, PixelData=encapsulate([bytes(damaged)])))
            outcomes.add("read")
        except InvalidImage:
            outcomes.add("refused")
    assert "refused" in outcomes
    assert np.array_equal(grey(dicom(pixels, syntax, PixelData=encapsulate([frame]))), pixels)
