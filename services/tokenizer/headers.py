"""Headers of picture files: kind, size and orientation, found without decoding anything.

Nothing is allocated from a number that the file states; a claim that cannot be true is refused here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from services.errors import InvalidImage
from services.tokenizer.limits import FIELD, FORMATS
from services.tokenizer.tiff_directory import (
    HEIGHT,
    PHOTOMETRIC,
    SAMPLES,
    TILE_HEIGHT,
    TILE_WIDTH,
    WIDTH,
    Directory,
    exif_orientation,
)

MAX_SCANS = 64
MAX_TILE_EDGE = 16384
MAX_SAMPLES = 8
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SIGNATURES = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff",
    "bmp": b"BM",
}
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        format: "png", "jpeg", "webp", "tiff" or "bmp".
        width, height: stored pixels, before the orientation is applied.
        orientation: EXIF orientation 1-8 that the reader still has to apply.
        white_is_zero: TIFF photometric 0.
        body: the file, or a copy without blocks that decoding does not need.
    """

    format: str
    width: int
    height: int
    body: bytes
    orientation: int = 1
    white_is_zero: bool = False


def sniff(data: bytes) -> str:
    """Kind of file by its first bytes: "png", "jpeg", "webp", "tiff", "bmp", "dicom".

    Raises:
        InvalidImage: none of these.
    """
    # First: a DICOM file may carry a TIFF header in its preamble.
    if data[128:132] == b"DICM" or data[:4] == b"DICM" or data.startswith(b"\2\0\0\0UL\4\0"):
        return "dicom"
    for name, signature in SIGNATURES.items():
        if data.startswith(signature):
            return name
    if data[:4] in TIFF_SIGNATURES:
        return "tiff"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise InvalidImage(f"not a picture; expected a {FORMATS} file", field=FIELD)


def read_header(data: bytes, kind: str) -> Header:
    """Header of a file of the given `kind` (`sniff`, not "dicom").

    Raises:
        InvalidImage: damaged, animated, of several pages, or absurd.
    """
    readers: dict[str, Callable[[bytes], Header]] = {
        "png": _png,
        "jpeg": _jpeg,
        "webp": _webp,
        "tiff": _tiff,
        "bmp": _bmp,
    }
    try:
        return readers[kind](data)
    except (struct.error, IndexError):
        raise InvalidImage(f"damaged or truncated {kind.upper()} header", field=FIELD) from None


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise InvalidImage("damaged PNG header", field=FIELD)
    width, height = struct.unpack_from(">II", data, 16)
    orientation, position = 1, 8
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"acTL":
            raise _several("animated PNG")
        if name == b"eXIf":
            orientation = exif_orientation(data[position + 8 : position + 8 + length])
        position += length + 12
    return Header("png", width, height, data, orientation)


def _jpeg(data: bytes) -> Header:
    # Pillow parses every metadata block while opening; only those that change pixels are kept.
    size: tuple[int, int] | None = None
    orientation, position, kept = 1, 2, [data[:2]]
    while True:
        while data[position] == 0xFF and data[position + 1] == 0xFF:
            position += 1
        start, marker = data[position], data[position + 1]
        if start != 0xFF or marker in (0x00, 0xD8, 0xD9):
            raise InvalidImage("damaged JPEG header", field=FIELD)
        (length,) = struct.unpack_from(">H", data, position + 2)
        segment = data[position : position + 2 + length]
        if len(segment) < 2 + length or length < 2:
            raise InvalidImage("damaged or truncated JPEG header", field=FIELD)
        if marker == 0xDA:
            break
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", segment, 5)
            size = size or (width, height)
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0" and orientation == 1:
            orientation = exif_orientation(segment[4:])
        if marker in (0xE0, 0xEE) or (marker != 0xFE and not 0xE0 <= marker <= 0xEF):
            kept.append(segment)
        position += 2 + length
    if size is None:
        raise InvalidImage("JPEG file without a frame header", field=FIELD)
    if (scans := data.count(b"\xff\xda", position)) > MAX_SCANS:
        raise InvalidImage(f"{scans} JPEG scans; the limit is {MAX_SCANS}", field=FIELD)
    kept.append(data[position:])
    return Header("jpeg", *size, b"".join(kept), orientation)


def _webp(data: bytes) -> Header:
    chunk = data[12:16]
    orientation = 1
    if chunk == b"VP8 ":
        width, height = (edge & 0x3FFF for edge in struct.unpack_from("<HH", data, 26))
    elif chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8X":
        if data[20] & 2:
            raise _several("animated WebP")
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        position = 12
        while position + 8 <= len(data):
            name, length = struct.unpack_from("<4sI", data, position)
            if name == b"EXIF":
                orientation = exif_orientation(data[position + 8 : position + 8 + length])
            position += 8 + length + (length & 1)
    else:
        raise InvalidImage("damaged WebP header", field=FIELD)
    return Header("webp", width, height, data, orientation)


def _tiff(data: bytes) -> Header:
    directory = Directory.read(data)
    if directory.more:
        raise _several("TIFF of several pages")
    values = directory.values
    width, height = values.get(WIDTH, 0), values.get(HEIGHT, 0)
    if max(values.get(TILE_WIDTH, 0), values.get(TILE_HEIGHT, 0)) > MAX_TILE_EDGE:
        raise InvalidImage(f"TIFF tiles; the limit is {MAX_TILE_EDGE} px an edge", field=FIELD)
    if values.get(TILE_WIDTH, 0) * values.get(TILE_HEIGHT, 0) > 4 * max(width * height, 1 << 20):
        raise InvalidImage("TIFF tiles larger than four times the picture", field=FIELD)
    if values.get(SAMPLES, 1) > MAX_SAMPLES:
        raise InvalidImage(
            f"{values[SAMPLES]} TIFF samples per pixel; the limit is {MAX_SAMPLES}", field=FIELD
        )
    # Pillow itself turns a TIFF as its orientation says.
    return Header("tiff", width, height, data, white_is_zero=values.get(PHOTOMETRIC) == 0)


def _bmp(data: bytes) -> Header:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return Header("bmp", abs(width), abs(height), data)


def _several(what: str) -> InvalidImage:
    return InvalidImage(f"{what}; the limit is one picture", field=FIELD)
