"""Written files: pixels, size, quality, and that each says it is synthetic."""

from __future__ import annotations

import re
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.decoder.files import FileOptions, Format, write_picture
from services.decoder.marking import SOURCE_TYPE, Origin, draw_mark, is_synthetic
from services.errors import InvalidInput
from tests.support.pictures import encode, noise

ORIGIN = Origin("medmax-phantom", "0123456789abcdef" * 4)
URI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
FORMATS = list(Format)


def write(pixels: NDArray[np.uint8], **options: object) -> Image.Image:
    file = write_picture(pixels, FileOptions(**options), ORIGIN)  # type: ignore[arg-type]
    image = Image.open(BytesIO(file.data))
    image.load()
    assert image.size == (file.width, file.height)
    assert image.get_format_mimetype() == file.mime_type
    return image


def smooth(side: int) -> NDArray[np.uint8]:
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    return np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 128), axis=2).astype(np.uint8)


def test_png_is_lossless() -> None:
    assert np.array_equal(np.asarray(write(noise(32, 32))), noise(32, 32))


@pytest.mark.parametrize("format", [Format.JPEG, Format.WEBP])
def test_quality_decides_size_and_fidelity(format: Format) -> None:
    files = [write_picture(noise(64, 64), FileOptions(format, quality), ORIGIN).data for quality in (5, 100)]
    assert len(files[0]) < len(files[1]) / 2
    best = np.asarray(write(smooth(64), format=format, quality=100)).astype(int)
    assert abs(best - smooth(64)).mean() < 3


def test_unset_quality_is_95() -> None:
    unset = write_picture(noise(64, 64), FileOptions(Format.JPEG), ORIGIN)
    assert unset == write_picture(noise(64, 64), FileOptions(Format.JPEG, 95), ORIGIN)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [16, 100, 600])
def test_size_is_the_edge_of_the_result(format: Format, size: int) -> None:
    assert write(smooth(64), format=format, size=size).size == (size, size)


def test_the_largest_size_is_2048() -> None:
    assert write(smooth(64), format=Format.JPEG, size=2048).size == (2048, 2048)


def test_resizing_is_bicubic() -> None:
    expected = Image.fromarray(noise(32, 32)).resize((50, 50), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(write(noise(32, 32), size=50)), np.asarray(expected))


@pytest.mark.parametrize(
    ("options", "field", "limit"),
    [
        ({"quality": 0}, "quality", "1 to 100"),
        ({"quality": 101}, "quality", "1 to 100"),
        ({"size": 15}, "size", "16 to 2048"),
        ({"size": 2049}, "size", "16 to 2048"),
        ({"size": 0}, "size", "16 to 2048"),
    ],
)
def test_options_out_of_range_are_refused_with_field_and_limit(
    options: dict[str, int], field: str, limit: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        FileOptions(**options)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert limit in caught.value.message


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("visible_mark", [False, True])
def test_every_file_declares_its_source_in_xmp(format: Format, visible_mark: bool) -> None:
    image = write(noise(64, 64), format=format, visible_mark=visible_mark, size=80)
    xmp = image.info["xmp"]
    packet = xmp.decode() if isinstance(xmp, bytes) else xmp
    root = ElementTree.fromstring(re.sub(r"<\?xpacket[^>]*\?>", "", packet).strip())
    description = root.find(".//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert description is not None
    name = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
    assert description.get(name) == URI == SOURCE_TYPE
    text = "".join(root.itertext())
    assert "Synthetic" in text
    assert ORIGIN.model_id in text
    assert ORIGIN.digest in text


@pytest.mark.parametrize("format", FORMATS)
def test_the_declaration_lies_uncompressed_in_the_file(format: Format) -> None:
    data = write_picture(noise(64, 64), FileOptions(format), ORIGIN).data
    assert URI.encode() in data
    assert is_synthetic(data)


def test_png_carries_international_text_chunks() -> None:
    data = write_picture(noise(64, 64), FileOptions(), ORIGIN).data
    chunks, position = {}, 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        assert struct.unpack_from(">I", data, position + 8 + length)[0] == zlib.crc32(kind + body)
        if kind == b"iTXt":
            key, text = body.split(b"\0", 1)
            chunks[key.decode()] = text[4:].decode()
        position += 12 + length
    assert URI in chunks["XML:com.adobe.xmp"]
    assert ORIGIN.digest in chunks["Description"]
    assert "Synthetic" in chunks["Description"]
    assert chunks["Software"] == "MedMax Serve"


@pytest.mark.parametrize("format", [Format.JPEG, Format.WEBP])
def test_jpeg_and_webp_carry_exif(format: Format) -> None:
    exif = write(noise(64, 64), format=format).getexif()
    assert "Synthetic" in exif[270]
    assert ORIGIN.digest in exif[270]
    assert exif[305] == "MedMax Serve"
    comment = exif.get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"ASCII\0\0\0")
    assert URI.encode() in comment


def test_ordinary_files_are_not_synthetic() -> None:
    other = b"<x:xmpmeta><rdf:Description DigitalSourceType='http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture'/></x:xmpmeta>"
    for data in (encode(noise()), encode(noise(), "JPEG", xmp=other), b"", b"<x:xmpmeta", URI.encode()):
        assert not is_synthetic(data)


@pytest.mark.parametrize("side", [96, 512])
@pytest.mark.parametrize("grey", [0, 20, 128, 235, 255])
def test_visible_mark_stands_out_and_covers_little(side: int, grey: int) -> None:
    plain = np.full((side, side, 3), grey, np.uint8)
    marked = np.asarray(draw_mark(Image.fromarray(plain)))
    rows, columns = np.nonzero((marked != plain).any(axis=2))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height * width <= 0.085 * side * side
    assert width >= 50
    assert height >= 6
    strip = marked[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].max(axis=2)
    assert (strip > 200).sum() >= 0.1 * strip.size
    assert (strip < 50).sum() >= 0.2 * strip.size


def test_visible_mark_is_drawn_only_on_request_and_at_any_size() -> None:
    assert np.array_equal(np.asarray(write(noise(64, 64))), noise(64, 64))
    for size in (16, 40, 600):
        marked = np.asarray(write(smooth(64), visible_mark=True, size=size))
        assert not np.array_equal(marked, np.asarray(write(smooth(64), size=size)))
