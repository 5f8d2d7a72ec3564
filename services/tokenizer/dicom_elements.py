"""Picks the few elements that a picture needs out of a DICOM file.

A file may hold gigabytes' worth of objects in a few megabytes (empty sequence items, lists of numbers), and
patient data beside the picture. So the file is walked without building anything, and only the elements in
`WANTED` reach pydicom; no other value is ever read, let alone named in a message.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from services.errors import InvalidImage, PayloadTooLarge
from services.tokenizer.limits import FIELD, Limits

TRANSFER_SYNTAX = 0x00020010
FUNCTIONAL_GROUPS = (0x52009229, 0x52009230)
PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
TABLES = frozenset(
    {0x00283000, 0x00283010, 0x00281201, 0x00281202, 0x00281203, 0x00281221, 0x00281222, 0x00281223}
)
WANTED = (
    PIXELS
    | TABLES
    | {0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011}
    | {0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120, 0x00280121}
    | {0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281056, 0x00281101, 0x00281102, 0x00281103}
)
MAX_ELEMENTS = 200_000
MAX_DEPTH = 32
MAX_VALUE_BYTES = 4096
MAX_TABLE_BYTES = 512 * 1024
MAX_INFLATION = 4

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)


@dataclass(frozen=True)
class Element:
    """Place of an element: header from `start`, value from `value` to `end`."""

    tag: int
    start: int
    value: int
    end: int


@dataclass
class Walker:
    """Walks the elements of one data set; `budget` bounds the work over all nested items."""

    data: bytes
    implicit: bool
    order: str
    budget: int = field(default=MAX_ELEMENTS)

    def elements(self, position: int, group: int | None = None) -> Iterator[Element]:
        """Top-level elements from `position` on, or only those of `group`.

        Raises:
            InvalidImage: damaged or truncated, or more than `MAX_ELEMENTS` elements.
        """
        while position < len(self.data):
            if group is not None and struct.unpack_from(self.order + "H", self.data, position) != (group,):
                return
            tag, _, value, length = self._header(position, self.implicit)
            if length != UNDEFINED:
                end = value + length
            elif tag in PIXELS:
                end = self._skip(value, False, flat=True)
            else:
                end = self._skip(value, self._implicit_below(position))
            if end > len(self.data):
                raise InvalidImage("truncated DICOM file", field=FIELD)
            yield Element(tag, position, value, end)
            position = end

    def _implicit_below(self, position: int) -> bool:
        # A sequence of VR UN is implicit inside, whatever the file is.
        return self.implicit or self.data[position + 4 : position + 6] == b"UN"

    def _header(self, position: int, implicit: bool) -> tuple[int, bytes, int, int]:
        self.budget -= 1
        if self.budget < 0:
            raise InvalidImage(f"more than {MAX_ELEMENTS} DICOM elements", field=FIELD)
        data, order = self.data, self.order
        group, element = struct.unpack_from(order + "HH", data, position)
        tag, vr = group << 16 | element, b""
        if implicit or tag in (ITEM, ITEM_END, SEQUENCE_END):
            (length,) = struct.unpack_from(order + "I", data, position + 4)
            return tag, vr, position + 8, length
        vr = data[position + 4 : position + 6]
        if not (vr.isalpha() and vr.isupper()):
            raise InvalidImage("damaged DICOM element", field=FIELD)
        if vr in LONG_VRS:
            (length,) = struct.unpack_from(order + "I", data, position + 8)
            return tag, vr, position + 12, length
        (length,) = struct.unpack_from(order + "H", data, position + 6)
        return tag, vr, position + 8, length

    def _skip(self, position: int, implicit: bool, flat: bool = False) -> int:
        """Position after a sequence of undefined length whose items start at `position`."""
        levels = [("items", implicit)]
        while levels:
            if len(levels) > MAX_DEPTH:
                raise InvalidImage(f"DICOM sequences nested deeper than {MAX_DEPTH}", field=FIELD)
            inside, implicit = levels[-1]
            tag, _, value, length = self._header(position, implicit)
            if tag == (SEQUENCE_END if inside == "items" else ITEM_END):
                levels.pop()
                position = value
            elif (inside == "items" and tag != ITEM) or (flat and length == UNDEFINED):
                raise InvalidImage("damaged DICOM sequence", field=FIELD)
            elif length != UNDEFINED:
                position = value + length
            elif inside == "items":
                levels.append(("elements", implicit))
                position = value
            else:
                below = implicit or self.data[position + 4 : position + 6] == b"UN"
                levels.append(("items", below))
                position = value
            if position > len(self.data):
                raise InvalidImage("truncated DICOM file", field=FIELD)
        return position


def read_elements(data: bytes, limits: Limits, wanted: frozenset[int] = WANTED) -> tuple[Dataset, UID]:
    """The `wanted` elements as a data set, and the transfer syntax.

    Raises:
        InvalidImage: damaged, truncated, without a known transfer syntax, or an enhanced (functional groups) file.
        PayloadTooLarge: a deflated file inflates to more than `MAX_INFLATION` times the byte limit.
    """
    start = 132 if data[128:132] == b"DICM" else 4 if data[:4] == b"DICM" else 0
    try:
        syntax, position = _transfer_syntax(data, start)
        if syntax == DeflatedExplicitVRLittleEndian:
            data, position = _inflate(data[position:], MAX_INFLATION * limits.max_bytes), 0
        little = syntax != ExplicitVRBigEndian
        walker = Walker(data, syntax == ImplicitVRLittleEndian, "<" if little else ">")
        kept = _keep(data, walker.elements(position), wanted)
    except struct.error:
        raise InvalidImage("truncated DICOM file", field=FIELD) from None
    except zlib.error:
        raise InvalidImage("damaged deflated DICOM file", field=FIELD) from None
    dataset = read_dataset(BytesIO(kept), walker.implicit, little)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset, syntax


def _transfer_syntax(data: bytes, start: int) -> tuple[UID, int]:
    syntax, position = None, start
    for element in Walker(data, False, "<").elements(start, group=2):
        if element.tag == TRANSFER_SYNTAX:
            syntax = UID(data[element.value : element.end][:64].rstrip(b"\0 ").decode("ascii", "replace"))
        position = element.end
    if syntax is None or syntax not in AllTransferSyntaxes:
        raise InvalidImage("DICOM file without a known transfer syntax", field=FIELD)
    return syntax, position


def _inflate(data: bytes, limit: int) -> bytes:
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit + 1)
    if len(inflated) > limit:
        raise PayloadTooLarge(
            f"inflates to more than {limit} bytes ({MAX_INFLATION} times MEDMAX_MAX_IMAGE_BYTES)", field=FIELD
        )
    return inflated


def _keep(data: bytes, elements: Iterator[Element], wanted: frozenset[int]) -> bytes:
    kept: dict[int, bytes] = {}
    for element in elements:
        if element.tag in FUNCTIONAL_GROUPS:
            raise InvalidImage(
                "enhanced DICOM (functional groups); the limit is a single-frame file", field=FIELD
            )
        if element.tag not in wanted:
            continue
        limit = MAX_TABLE_BYTES if element.tag in TABLES else MAX_VALUE_BYTES
        name = f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X})"
        if element.tag not in PIXELS and element.end - element.value > limit:
            raise InvalidImage(f"DICOM element {name} has more than {limit} bytes", field=FIELD)
        if element.tag in kept:
            raise InvalidImage(f"DICOM element {name} occurs twice", field=FIELD)
        kept[element.tag] = data[element.start : element.end]
    return b"".join(kept.values())
