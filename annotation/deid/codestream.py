"""JPEG, JPEG-LS and JPEG 2000 frames without comments and application data, which may hold any text."""

from __future__ import annotations

import struct

from services.errors import InvalidImage

FIELD = "dataset"
_SOI, _SOC, _COM_J2K, _SOT, _SOS = 0xFFD8, 0xFF4F, 0xFF64, 0xFF90, 0xFFDA
_DROPPED = frozenset({*range(0xFFE0, 0xFFF0), 0xFFFE}) - {0xFFEE, 0xFFE8}
"""APPn and COM; APP14 tells the colour transform, APP8 that of lossless SPIFF files."""


def strip_comments(frame: bytes) -> bytes:
    """The frame without its comments; its picture is the same.

    Raises:
        InvalidImage: damaged, or neither JPEG, JPEG-LS nor JPEG 2000.
    """
    if frame[4:8] == b"jP  ":
        frame = frame[max(frame.find(b"\xff\x4f\xff\x51"), 0) :]
    try:
        (start,) = struct.unpack_from(">H", frame)
        if start == _SOI:
            return _strip(frame, _DROPPED, _SOS)
        if start == _SOC:
            return _strip(frame, frozenset({_COM_J2K}), _SOT)
    except struct.error:
        raise InvalidImage("truncated compressed pixel data", field=FIELD) from None
    raise InvalidImage("compressed pixel data that is neither JPEG, JPEG-LS nor JPEG 2000", field=FIELD)


def _strip(frame: bytes, dropped: frozenset[int], last: int) -> bytes:
    """Walks the segments from the first to `last`, which and after which everything stays."""
    kept = [frame[:2]]
    position = 2
    while True:
        marker, length = struct.unpack_from(">HH", frame, position)
        if marker == last:
            return b"".join([*kept, frame[position:]])
        end = position + 2 + length
        if marker < 0xFF00 or length < 2 or end > len(frame):
            raise InvalidImage("damaged compressed pixel data", field=FIELD)
        if marker not in dropped:
            kept.append(frame[position:end])
        position = end
