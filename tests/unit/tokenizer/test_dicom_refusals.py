"""DICOM files that are damaged, hostile or not one picture are refused; mutated ones never break the reader."""

from __future__ import annotations

import logging
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from services.errors import InvalidInput, PayloadTooLarge
from services.tokenizer.window import Window
from tests.support.dicom_files import (
    LIMITS,
    VALUES,
    compressed,
    grey,
    palette,
    read,
    refused,
    segmented,
    table,
)
from tests.support.pictures import PATIENT, dicom, encode, noise, read_or_refuse


@pytest.mark.parametrize(
    ("words", "reason"),
    [((0, 1, 0) + (1, 65535, 7) * 40, "65536 entries"), ((0, 1, 0, 2, 1, 0, 0), "indirect")],
)
def test_segmented_palette_that_explodes_is_refused(words: tuple[int, ...], reason: str) -> None:
    assert reason in refused(dicom(noise(10, 12, 1), **segmented(*words)))


def test_a_data_set_without_file_meta_information_is_refused() -> None:
    target = BytesIO()
    pydicom.dcmread(BytesIO(dicom(VALUES))).save_as(target, enforce_file_format=False)
    data = target.getvalue()[132:]
    position = data.find(b"\x08\x00\x16\x00")
    assert "not a picture" in refused(data[position:])


def test_no_pixel_data_is_refused() -> None:
    assert "without pixel data" in refused(dicom(VALUES, PixelData=None))


def test_several_frames_are_refused_with_the_limit() -> None:
    data = dicom(VALUES, NumberOfFrames=3, PixelData=VALUES.tobytes() * 3)
    message = refused(data)
    assert "3 frames" in message
    assert "the limit is 1 frame" in message


def test_pixel_data_of_several_frames_without_saying_so_is_refused() -> None:
    refused(dicom(VALUES, PixelData=VALUES.tobytes() * 2))


def test_functional_groups_are_refused() -> None:
    assert "functional groups" in refused(dicom(VALUES, SharedFunctionalGroupsSequence=Sequence([Dataset()])))


def test_short_pixel_data_is_refused_with_what_was_expected() -> None:
    assert str(VALUES.nbytes) in refused(dicom(VALUES, PixelData=VALUES.tobytes()[:-2]))


def test_padded_pixel_data_is_read() -> None:
    assert np.array_equal(grey(dicom(VALUES, PixelData=VALUES.tobytes() + bytes(100))), grey(dicom(VALUES)))


def test_implausible_size_is_refused_before_anything_is_allocated() -> None:
    assert "65535 x 65535" in refused(dicom(VALUES, Rows=65535, Columns=65535), PayloadTooLarge)


@pytest.mark.parametrize(
    "attributes",
    [
        {"Rows": 0},
        {"Rows": None},
        {"Columns": 1, "Rows": VALUES.size},
        {"BitsAllocated": 12},
        {"BitsStored": 17, "HighBit": 15},
        {"BitsStored": 12, "HighBit": 15},
        {"SamplesPerPixel": 4},
        {"SamplesPerPixel": 3},
        {"PhotometricInterpretation": "XYZ"},
        {"PhotometricInterpretation": None},
        {"PhotometricInterpretation": "RGB"},
        {"VOILUTFunction": "CUBIC"},
        {"RescaleSlope": 1e300},
        {"PhotometricInterpretation": "PALETTE COLOR"},
        {"VOILUTSequence": Sequence([Dataset()])},
    ],
)
def test_contradictory_headers_are_refused(attributes: dict[str, Any]) -> None:
    refused(dicom(VALUES, **attributes))


def test_a_window_is_refused_for_colour() -> None:
    with pytest.raises(InvalidInput) as caught:
        read(dicom(noise()), Window(1, 2))
    assert caught.value.field == "window"


@pytest.mark.parametrize("syntax", [MPEG2MPML, HTJ2KLossless])
def test_unsupported_transfer_syntax_is_refused_by_name(syntax: str) -> None:
    message = refused(dicom(VALUES, syntax, PixelData=encapsulate([b"\0" * 64])))
    assert syntax.name in message  # type: ignore[attr-defined]


def test_unknown_transfer_syntax_is_refused() -> None:
    data = dicom(VALUES)
    unknown = data.replace(ExplicitVRLittleEndian.encode() + b"\0", b"1.2.840.10008.9.9.9\0")
    assert unknown != data
    assert "transfer syntax" in refused(unknown)


def test_deflate_bomb_is_refused_with_the_limit() -> None:
    data = dicom(VALUES, DeflatedExplicitVRLittleEndian)
    start = 132 + 12 + struct.unpack_from("<I", data, 140)[0]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(bytes(50_000_000)) + deflate.flush()
    assert str(4 * LIMITS.max_bytes) in refused(data[:start] + bomb, PayloadTooLarge)


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    header = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + b"\0\0"
    return header + struct.pack("<I", len(value) if length is None else length) + value


def before_rows(extra: bytes) -> bytes:
    data = dicom(VALUES)
    position = data.find(b"\x28\x00\x02\x00US")
    return data[:position] + extra + data[position:]


ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"


ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"


SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def test_sequences_and_private_elements_are_passed_over() -> None:
    inner = element(0x00090012, b"UN", ITEM + b"\x08\0\0\0\2\0\0\0ab" + ITEM_END + SEQUENCE_END, 0xFFFFFFFF)
    nested = element(0x00090011, b"SQ", ITEM + inner + ITEM_END + SEQUENCE_END, 0xFFFFFFFF)
    big = element(0x00091001, b"OB", bytes(500_000))
    assert np.array_equal(grey(before_rows(nested + big)), grey(dicom(VALUES)))


def test_countless_sequence_items_are_refused_with_the_limit() -> None:
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 210_000
    assert "200000" in refused(before_rows(element(0x00090011, b"SQ", items + SEQUENCE_END, 0xFFFFFFFF)))


def test_deep_nesting_is_refused_with_the_limit() -> None:
    opening = element(0x00090011, b"SQ", b"", 0xFFFFFFFF) + ITEM
    closing = ITEM_END + SEQUENCE_END
    assert "32" in refused(before_rows(opening * 5000 + closing * 5000))


def test_an_element_that_occurs_twice_is_refused() -> None:
    data = dicom(VALUES)
    position = data.find(b"\x28\x00\x10\x00US")
    assert "twice" in refused(data[:position] + data[position : position + 10] + data[position:])


def test_a_huge_list_of_windows_is_refused_with_the_limit() -> None:
    data = dicom(VALUES, WindowCenter=[1] * 3000, WindowWidth=[2] * 3000)
    assert "4096 bytes" in refused(data)


def test_patient_data_is_in_no_message_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    data = dicom(VALUES)
    assert PATIENT.encode() in data
    for position in range(140, len(data), 7):
        with pytest.raises(InvalidInput) as caught:
            read(data[:position])
        assert "Doe" not in caught.value.message
    assert "Doe" not in caplog.text


SEEDS = [
    dicom(VALUES, WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=-1024),
    dicom(VALUES, ImplicitVRLittleEndian, VOILUTSequence=table(0, 12, np.arange(50, dtype=np.uint16))),
    dicom(noise()),
    dicom(noise(10, 12, 1), **palette()),
    compressed(noise(20, 24, 1), RLELossless),
    compressed(VALUES, JPEG2000Lossless),
    dicom(noise(), JPEGBaseline8Bit, PixelData=encapsulate([encode(noise(), "JPEG")]), PhotometricInterpretation="YBR_FULL"),
]  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_mutated_files_are_read_or_refused(data: st.DataObject) -> None:
    file = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(132, len(file) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(
        bytes(file[: data.draw(st.integers(1, len(file)))] if data.draw(st.booleans()) else file), LIMITS
    )
