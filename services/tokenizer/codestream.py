"""Compressed DICOM frames: what their own headers claim, and decoding in a process of its own."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidImage
from services.tokenizer.limits import FIELD

CHILD = Path(__file__).with_name("gdcm_decode.py")
CHILD_SECONDS = 10
CHILD_BASE_BYTES = 1 << 30
MAX_TILES = 4096
MAX_LAYERS = 64
JPEG_FRAMES = (frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}
CODESTREAM = b"\xff\x4f\xff\x51"


@dataclass(frozen=True)
class Frame:
    """Size of a compressed frame by its own header; `precision` in bits per sample."""

    width: int
    height: int
    samples: int
    precision: int


def read_frame_header(frame: bytes) -> Frame:
    """Header of a JPEG, JPEG-LS or JPEG 2000 codestream.

    Raises:
        InvalidImage: damaged, or a JPEG 2000 stream of more than 4096 tiles or 64 layers.
    """
    try:
        return _j2k(frame) if frame.startswith(CODESTREAM) else _jpeg(frame)
    except (struct.error, IndexError):
        raise InvalidImage("damaged or truncated compressed pixel data", field=FIELD) from None


def _jpeg(frame: bytes) -> Frame:
    position = 2
    while frame[:2] == b"\xff\xd8" and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", frame, position + 2)
        if marker in JPEG_FRAMES:
            precision, height, width, samples = struct.unpack_from(">BHHB", frame, position + 4)
            return Frame(width, height, samples, precision)
        position += 2 + length
    raise InvalidImage("damaged compressed pixel data", field=FIELD)


def _j2k(frame: bytes) -> Frame:
    size = struct.unpack_from(">HHIIIIIIIIHB", frame, 4)
    length, _, right, bottom, left, top, tile_width, tile_height, _, _, samples, depth = size
    width, height = right - left, bottom - top
    tiles = -(-right // max(tile_width, 1)) * -(-bottom // max(tile_height, 1))
    if min(tile_width, tile_height) < 1 or tiles > MAX_TILES:
        raise InvalidImage(f"{tiles} JPEG 2000 tiles; the limit is {MAX_TILES}", field=FIELD)
    position = 4 + length
    while (marker := struct.unpack_from(">H", frame, position)[0]) != 0xFF90:
        (length,) = struct.unpack_from(">H", frame, position + 2)
        if marker == 0xFF52 and (layers := struct.unpack_from(">H", frame, position + 6)[0]) > MAX_LAYERS:
            raise InvalidImage(f"{layers} JPEG 2000 layers; the limit is {MAX_LAYERS}", field=FIELD)
        position += 2 + length
    return Frame(width, height, samples, (depth & 0x7F) + 1)


def decode_with_gdcm(frame: bytes, header: Frame, syntax: str, photometric: str) -> NDArray[Any]:
    """Samples of a JPEG lossless or JPEG-LS frame: uint8 or uint16 [height, width(, samples)].

    Raises:
        InvalidImage: the decoder failed, took more than 10 s of CPU time or more memory than the picture warrants.
    """
    bits = 8 if header.precision <= 8 else 16
    expected = header.width * header.height * header.samples * bits // 8
    shape = {
        "columns": header.width,
        "rows": header.height,
        "samples": header.samples,
        "bits": bits,
        "precision": header.precision,
        "photometric": photometric,
        "syntax": syntax,
        "memory": CHILD_BASE_BYTES + 16 * expected,
        "seconds": CHILD_SECONDS,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(CHILD)],
            input=json.dumps(shape).encode() + b"\n" + frame,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=2 * CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InvalidImage(
            f"compressed pixel data took more than {2 * CHILD_SECONDS} s", field=FIELD
        ) from None
    if done.returncode != 0 or len(done.stdout) != expected:
        raise InvalidImage("damaged or unsupported compressed pixel data", field=FIELD)
    samples = np.frombuffer(done.stdout, f"<u{bits // 8}")
    size = (header.height, header.width)
    return samples.reshape(size if header.samples == 1 else (*size, header.samples))
