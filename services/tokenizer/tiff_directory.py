"""First image file directory of a TIFF file, or of an EXIF block, read without trusting it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from services.errors import InvalidImage
from services.tokenizer.limits import FIELD

WIDTH, HEIGHT, PHOTOMETRIC, ORIENTATION, SAMPLES = 256, 257, 262, 274, 277
TILE_WIDTH, TILE_HEIGHT = 322, 323
BULK = frozenset({273, 279, 324, 325})
"""Offsets and byte counts of strips and tiles: the only long lists of numbers that decoding needs."""
MAX_ENTRIES = 512
MAX_NUMBERS = 4096
NUMBERS = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 16: ("Q", 8)}
SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
NOT_READ = frozenset({1, 2, 6, 7})
"""Types that are read as bytes, whose length costs nothing beyond the file itself."""


@dataclass(frozen=True)
class Directory:
    """Single-valued integers by tag, and whether another directory follows."""

    values: dict[int, int]
    more: bool

    @classmethod
    def read(cls, data: bytes) -> Directory:
        """Raises: InvalidImage, struct.error if the directory is damaged or absurd."""
        order = {b"II": "<", b"MM": ">"}.get(data[:2])
        if order is None:
            raise InvalidImage("damaged TIFF header", field=FIELD)
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        if offset > len(data):
            raise InvalidImage("truncated TIFF file", field=FIELD)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
        if count > MAX_ENTRIES:
            raise InvalidImage(f"{count} TIFF tags; the limit is {MAX_ENTRIES}", field=FIELD)
        position, step = offset + (8 if big else 2), 20 if big else 12
        values: dict[int, int] = {}
        for _ in range(count):
            tag, kind, length = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, position)
            if length * SIZES.get(kind, 1) > len(data):
                raise InvalidImage(f"TIFF tag {tag} is longer than the file", field=FIELD)
            if length > MAX_NUMBERS and kind not in NOT_READ and tag not in BULK:
                raise InvalidImage(
                    f"TIFF tag {tag} has {length} values; the limit is {MAX_NUMBERS}", field=FIELD
                )
            if length == 1 and kind in NUMBERS and (kind != 16 or big):
                letter, _size = NUMBERS[kind]
                (value,) = struct.unpack_from(order + letter, data, position + (12 if big else 8))
                values.setdefault(tag, value)
            position += step
        (following,) = struct.unpack_from(order + ("Q" if big else "I"), data, position)
        return cls(values, bool(following))


def exif_orientation(exif: bytes) -> int:
    """EXIF orientation 1-8 of an `Exif` block; 1 where it is missing or damaged (as viewers take it)."""
    try:
        orientation = Directory.read(exif.removeprefix(b"Exif\0\0")).values.get(ORIENTATION, 1)
    except (InvalidImage, struct.error):
        return 1
    return orientation if 1 <= orientation <= 8 else 1
