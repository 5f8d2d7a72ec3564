"""DICOM files with tables, palettes and compressed pixel data, and how tests read them."""

from __future__ import annotations

import struct
from typing import Any

import gdcm
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from services.errors import InvalidImage, InvalidInput
from services.tokenizer.limits import Limits
from services.tokenizer.pictures import read_picture
from services.tokenizer.window import Window
from tests.support.pictures import dicom

LIMITS = Limits(max_bytes=1 << 21, max_pixels=300_000)


VALUES = np.random.default_rng(3).integers(-1024, 3000, (12, 16), np.int16)


def read(data: bytes, window: Window | None = None) -> NDArray[np.uint8]:
    picture = read_picture(data, LIMITS, window)
    assert picture.format == "dicom"
    return picture.pixels


def grey(data: bytes, window: Window | None = None) -> NDArray[np.uint8]:
    pixels = read(data, window)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def refused(data: bytes, kind: type[InvalidInput] = InvalidImage, field: str = "image") -> str:
    with pytest.raises(kind) as caught:
        read(data)
    assert caught.value.field == field
    assert "Doe" not in caught.value.message
    return caught.value.message


def table(first: int, bits: int, entries: NDArray[np.uint16], **more: Any) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return Sequence([item])


def palette(**changes: Any) -> dict[str, Any]:
    entries = np.random.default_rng(5).integers(0, 65536, (3, 256), np.uint16)
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, values in zip(("Red", "Green", "Blue"), entries, strict=True):
        attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        attributes[f"{colour}PaletteColorLookupTableData"] = values.tobytes()
    return attributes | changes


def segmented(*words: int) -> dict[str, Any]:
    data = struct.pack(f"<{len(words)}H", *words)
    changes: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        changes[f"{colour}PaletteColorLookupTableData"] = None
        changes[f"Segmented{colour}PaletteColorLookupTableData"] = data
    return palette(**changes)


def gdcm_frame(pixels: NDArray[Any], syntax: str) -> bytes:
    """`pixels` compressed by GDCM, as one frame."""
    # The writer owns the image: one made here would be freed both by Python and by the filter below.
    writer = gdcm.ImageWriter()
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((pixels.shape[1], pixels.shape[0], 1))
    colour = pixels.ndim == 3
    meaning = gdcm.PhotometricInterpretation.RGB if colour else gdcm.PhotometricInterpretation.MONOCHROME2
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(meaning))
    bits = pixels.dtype.itemsize * 8
    signed = int(pixels.dtype.kind == "i")
    image.SetPixelFormat(gdcm.PixelFormat(3 if colour else 1, bits, bits, bits - 1, signed))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(pixels.tobytes())
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(image)
    assert change.Change()
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    return fragments.GetFragment(0).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")


def compressed(pixels: NDArray[Any], syntax: str, **attributes: Any) -> bytes:
    frame = gdcm_frame(pixels, syntax)
    return dicom(pixels, syntax, PixelData=encapsulate([frame]), **attributes)
