"""Stored pixel values of a single-frame DICOM file, whatever their transfer syntax."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from services.errors import InvalidImage
from services.tokenizer.codestream import CODESTREAM, Frame, decode_with_gdcm, read_frame_header
from services.tokenizer.limits import FIELD, Limits

PILLOW = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEG2000, JPEG2000Lossless})
GDCM = frozenset({JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless})
GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
PALETTE = "PALETTE COLOR"


@dataclass(frozen=True)
class Layout:
    """Image Pixel module, checked.

    Attributes:
        samples: 1 or 3.
        allocated, stored: bits; 32 or 64 allocated with `floating` for (Double) Float Pixel Data.
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    signed: bool
    floating: bool

    @classmethod
    def read(cls, dataset: Dataset, limits: Limits) -> Layout:
        """Raises: InvalidImage, PayloadTooLarge for what is missing, contradictory or over a limit."""
        present = [
            name for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if name in dataset
        ]
        if len(present) != 1:
            raise InvalidImage("DICOM file without pixel data", field=FIELD)
        frames = _integer(dataset, "NumberOfFrames", 1)
        if frames != 1:
            raise InvalidImage(f"DICOM file of {frames} frames; the limit is 1 frame", field=FIELD)
        rows, columns = _integer(dataset, "Rows"), _integer(dataset, "Columns")
        limits.check_size(columns, rows)
        floating = present[0] != "PixelData"
        allocated = (
            {"FloatPixelData": 32, "DoubleFloatPixelData": 64}[present[0]]
            if floating
            else _integer(dataset, "BitsAllocated")
        )
        layout = cls(
            rows,
            columns,
            _integer(dataset, "SamplesPerPixel", 1),
            str(dataset.get("PhotometricInterpretation", "")).strip(),
            allocated,
            allocated if floating else _integer(dataset, "BitsStored", allocated),
            not floating and _integer(dataset, "PixelRepresentation", 0) == 1,
            floating,
        )
        layout._check(_integer(dataset, "HighBit", layout.stored - 1))
        return layout

    def _check(self, high_bit: int) -> None:
        grey, colour = self.photometric in GREY, self.photometric in COLOUR
        if not grey and not colour and self.photometric != PALETTE:
            raise InvalidImage(
                "unsupported PhotometricInterpretation; expected MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB or "
                "YBR_*",
                field=FIELD,
            )
        if self.samples != (3 if colour else 1):
            raise InvalidImage("SamplesPerPixel contradicts PhotometricInterpretation", field=FIELD)
        allowed = (32, 64) if self.floating else (1, 8, 16, 32) if grey else (8, 16)
        if self.allocated not in allowed:
            raise InvalidImage(f"BitsAllocated must be one of {allowed} here", field=FIELD)
        if not 1 <= self.stored <= self.allocated or high_bit != self.stored - 1:
            raise InvalidImage("BitsStored and HighBit contradict BitsAllocated", field=FIELD)
        if colour and (self.signed or (self.photometric != "RGB" and self.stored != 8)):
            raise InvalidImage("colour DICOM must be unsigned, and YBR of 8 bits", field=FIELD)

    @property
    def frame_bytes(self) -> int:
        """Bytes of an uncompressed frame."""
        bits = self.rows * self.columns * self.samples * self.allocated
        if self.photometric == "YBR_FULL_422":
            bits = bits * 2 // 3
        return -(-bits // 8)


def _integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    value = dataset.get(keyword)
    if value is None and default is not None:
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise InvalidImage(f"DICOM element {keyword} is missing or no integer", field=FIELD) from None


def stored_values(dataset: Dataset, syntax: UID, layout: Layout) -> tuple[NDArray[Any], str]:
    """Pixel values [rows, columns] or [rows, columns, 3] before any rescale, and what they mean.

    Returns:
        The values, native-endian and sign-extended from the stored bits, and the photometric interpretation of
        what was decoded (decoders turn some colour spaces into RGB themselves).

    Raises:
        InvalidImage: wrong length, damaged, or a transfer syntax that is not supported.
    """
    if not syntax.is_encapsulated:
        _check_native_length(dataset, layout)
        return _pydicom(dataset, syntax, "")
    if not dataset["PixelData"].is_undefined_length or layout.floating:
        raise InvalidImage("compressed pixel data must be encapsulated", field=FIELD)
    if layout.allocated not in (8, 16) and not (syntax == RLELossless and layout.allocated == 32):
        raise InvalidImage("compressed pixel data must have 8 or 16 bits allocated", field=FIELD)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == RLELossless:
        check_rle(frame, layout.rows * layout.columns)
        return _pydicom(dataset, syntax, "pydicom")
    if syntax not in PILLOW | GDCM:
        raise InvalidImage(f"transfer syntax {syntax.name} is not supported", field=FIELD)
    if frame[4:8] == b"jP  ":
        frame = frame[max(frame.find(CODESTREAM), 0) :]
        dataset.PixelData = encapsulate([frame])
    header = read_frame_header(frame)
    if header.precision > layout.allocated or header != Frame(
        layout.columns, layout.rows, layout.samples, header.precision
    ):
        raise InvalidImage("size of the compressed pixel data contradicts the DICOM header", field=FIELD)
    if syntax in PILLOW and not (syntax == JPEGExtended12Bit and header.precision > 8):
        return _pydicom(dataset, syntax, "pillow")
    samples = decode_with_gdcm(frame, header, str(syntax), layout.photometric)
    return _signed(samples, layout), layout.photometric


def _pydicom(dataset: Dataset, syntax: UID, plugin: str) -> tuple[NDArray[Any], str]:
    values, properties = get_decoder(syntax).as_array(dataset, index=0, raw=True, decoding_plugin=plugin)
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return native, str(properties["photometric_interpretation"])


def _signed(values: NDArray[Any], layout: Layout) -> NDArray[Any]:
    if not layout.signed:
        return values
    shift = values.dtype.itemsize * 8 - layout.stored
    signed = values.view(f"i{values.dtype.itemsize}")
    return (signed << shift) >> shift


def _check_native_length(dataset: Dataset, layout: Layout) -> None:
    keyword = "PixelData" if not layout.floating else f"{'Double' * (layout.allocated == 64)}FloatPixelData"
    length = len(dataset[keyword].value or b"")
    if not layout.frame_bytes <= length < max(2 * layout.frame_bytes, layout.frame_bytes + 2):
        raise InvalidImage(
            f"{length} bytes of pixel data; {layout.columns} x {layout.rows} px take {layout.frame_bytes}",
            field=FIELD,
        )


def check_rle(frame: bytes, pixels: int) -> None:
    """Refuses an RLE frame whose segments do not decode to about `pixels` bytes each.

    Raises:
        InvalidImage: damaged, or a segment expands to more than `pixels` bytes and padding.
    """
    if len(frame) < 64:
        raise InvalidImage("truncated RLE pixel data", field=FIELD)
    count, *offsets = struct.unpack("<16I", frame[:64])
    starts = [*offsets[:count], len(frame)] if count <= 15 else []
    if not starts or starts != sorted(starts) or starts[0] < 64:
        raise InvalidImage("damaged RLE header", field=FIELD)
    for position, end in pairwise(starts):
        decoded = 0
        while position < end and decoded <= pixels + 256:
            control = frame[position]
            if control == 128:
                position += 1
            else:
                decoded += control + 1 if control < 128 else 257 - control
                position += control + 2 if control < 128 else 2
        if not pixels <= decoded <= pixels + 256:
            raise InvalidImage("RLE segment of a wrong length", field=FIELD)
