"""Reading picture files: every colour mode and orientation, and refusal of what is damaged or hostile."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from services.errors import InvalidImage, InvalidInput, PayloadTooLarge
from services.tokenizer.limits import Limits
from services.tokenizer.pictures import Picture, read_picture
from services.tokenizer.window import Window
from tests.support.pictures import encode, noise, png_header, read_or_refuse, tiff

LIMITS = Limits(max_bytes=1 << 20, max_pixels=100_000)
SHORT, LONG = 3, 4
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, SAMPLES, ROWS, COUNTS = (
    256, 257, 258, 259, 262, 273, 277, 278, 279,
)  # fmt: skip


def read(data: bytes, window: Window | None = None) -> Picture:
    return read_picture(data, LIMITS, window)


def refused(data: bytes, kind: type[InvalidInput] = InvalidImage) -> str:
    with pytest.raises(kind) as caught:
        read(data)
    assert caught.value.field == "image"
    return caught.value.message


@pytest.mark.parametrize(
    ("format", "options", "name"),
    [
        ("PNG", {}, "png"),
        ("WEBP", {"lossless": True}, "webp"),
        ("TIFF", {}, "tiff"),
        ("TIFF", {"compression": "tiff_lzw"}, "tiff"),
        ("TIFF", {"compression": "tiff_adobe_deflate", "big_tiff": True}, "tiff"),
        ("BMP", {}, "bmp"),
    ],
)
def test_lossless_formats_give_the_same_pixels(format: str, options: dict[str, object], name: str) -> None:
    pixels = noise()
    picture = read(encode(pixels, format, **options))
    assert np.array_equal(picture.pixels, pixels)
    assert (picture.format, picture.width, picture.height) == (name, 32, 24)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_decoded_as_pillow_does(progressive: bool) -> None:
    data = encode(noise(), "JPEG", quality=90, progressive=progressive)
    assert np.array_equal(read(data).pixels, np.asarray(Image.open(BytesIO(data))))


def test_metadata_of_a_jpeg_does_not_change_its_pixels() -> None:
    data = encode(noise(), "JPEG", exif=Image.Exif(), comment=b"x" * 1000, dpi=(72, 72), xmp=b"<x/>")
    assert np.array_equal(read(data).pixels, np.asarray(Image.open(BytesIO(data))))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr"])
def test_opaque_modes_become_rgb(mode: str) -> None:
    image = Image.fromarray(noise()).convert(mode)
    picture = read(encode(image, "TIFF" if mode == "YCbCr" else "PNG"))
    assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_kept(mode: str) -> None:
    image = Image.fromarray(noise(channels=4)).convert(mode)
    assert np.array_equal(read(encode(image)).pixels, np.asarray(image.convert("RGBA")))


def test_transparent_palette_entry_becomes_alpha() -> None:
    image = Image.fromarray(noise()).convert("P")
    data = encode(image, transparency=7)
    alpha = read(data).pixels[..., 3]
    assert np.array_equal(alpha == 0, np.asarray(image) == 7)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(format: str) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    colour = read(encode(image, format)).pixels[8, 8].astype(int)
    assert abs(colour - [0, 255, 255]).max() <= 3


def test_lab_becomes_rgb() -> None:
    white, grey = (Image.new("LAB", (16, 16), (light, 128, 128)) for light in (255, 128))
    assert read(encode(white, "TIFF")).pixels.min() >= 253
    colour = read(encode(grey, "TIFF")).pixels[0, 0].astype(int)
    assert np.ptp(colour) <= 2
    assert abs(colour.mean() - 119) <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 90} if format == "JPEG" else {}
    data = encode(noise(), format, exif=exif, **options)
    expected = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    picture = read(data)
    assert np.array_equal(picture.pixels, np.asarray(expected.convert("RGB")))
    assert (picture.width, picture.height) == ((24, 32) if orientation > 4 else (32, 24))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_stretched_over_its_range(format: str) -> None:
    values = np.random.default_rng(1).integers(900, 3000, (16, 20), np.uint16)
    grey = read(encode(values, format)).pixels[..., 0]
    low, high = int(values.min()), int(values.max())
    expected = np.floor((values.astype(float) - low) / (high - low) * 255 + 0.5)
    assert np.array_equal(grey, expected)


def test_16_bit_grey_takes_a_window() -> None:
    values = np.array([[0, 100, 150, 200, 250, 300, 400, 65535]] * 8, np.uint16)
    grey = read(encode(values), Window(200, 200)).pixels[0, :, 0]
    assert grey.tolist() == [0, 0, 64, 128, 191, 255, 255, 255]


def test_16_bit_tiff_with_white_at_zero_is_inverted() -> None:
    values = np.tile(np.linspace(0, 60000, 16).astype("<u2"), (16, 1))
    ordinary = encode(values, "TIFF")
    position = ordinary.find(struct.pack("<HHIH", PHOTOMETRIC, SHORT, 1, 1))
    assert position > 0
    white_is_zero = ordinary[: position + 8] + b"\0" + ordinary[position + 9 :]
    assert np.array_equal(read(white_is_zero).pixels, 255 - read(ordinary).pixels)


def test_float_tiff_ignores_values_that_are_no_numbers() -> None:
    values = np.linspace(-2, 2, 256, dtype=np.float32).reshape(16, 16)
    values[0, 0], values[0, 1] = np.nan, np.inf
    grey = read(encode(values, "TIFF")).pixels[..., 0]
    assert (grey[0, 0], grey[0, 1], grey[0, 2], grey[-1, -1]) == (0, 255, 0, 255)


def test_constant_deep_picture_is_black() -> None:
    assert read(encode(np.full((16, 16), 700, np.uint16))).pixels.max() == 0


def test_window_is_refused_for_an_8_bit_picture() -> None:
    with pytest.raises(InvalidInput) as caught:
        read(encode(noise()), Window(100, 50))
    assert caught.value.field == "window"


@pytest.mark.parametrize(
    ("center", "width", "field"),
    [
        (float("nan"), 1, "window.center"),
        (float("inf"), 1, "window.center"),
        (0, 0, "window.width"),
        (0, -5, "window.width"),
        (0, float("nan"), "window.width"),
        (0, 1e300, "window.width"),
    ],
)
def test_impossible_window_is_refused_with_its_field(center: float, width: float, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Window(center, width)
    assert caught.value.field == field


def test_no_bytes_are_refused() -> None:
    assert "empty" in refused(b"")


@pytest.mark.parametrize(
    "data", [b"hello", b"GIF89a" + bytes(40), b"%PDF-1.7", b"<svg xmlns='x'/>", bytes(200)]
)
def test_a_file_that_is_no_picture_is_refused_with_what_is_accepted(data: bytes) -> None:
    assert "PNG, JPEG, WebP, TIFF, BMP or single-frame DICOM" in refused(data)


def test_too_many_bytes_are_refused_with_the_limit() -> None:
    assert str(1 << 20) in refused(encode(noise()) + bytes(1 << 20), PayloadTooLarge)


def test_a_decompression_bomb_is_refused_from_its_header() -> None:
    message = refused(png_header(50_000, 50_000), PayloadTooLarge)
    assert "50000 x 50000" in message
    assert "100000 pixels" in message


def webp_bomb() -> bytes:
    data = bytearray(encode(noise(channels=4), "WEBP", lossless=True, exif=Image.Exif(), xmp=b"<x/>"))
    assert data[12:16] == b"VP8X"
    data[24:30] = b"\xff\x3f\x00\xff\x3f\x00"
    return bytes(data)


def bmp_bomb() -> bytes:
    data = bytearray(encode(noise(), "BMP"))
    data[18:26] = struct.pack("<ii", 60_000, -60_000)
    return bytes(data)


def jpeg_bomb() -> bytes:
    data = bytearray(encode(noise(), "JPEG"))
    frame = data.find(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


def tiff_bomb() -> bytes:
    return tiff({WIDTH: (LONG, 1, 60_000), HEIGHT: (LONG, 1, 60_000), BITS: (SHORT, 1, 8)})


@pytest.mark.parametrize("bomb", [webp_bomb(), bmp_bomb(), jpeg_bomb(), tiff_bomb()])
def test_bombs_of_every_format_are_refused_from_their_headers(bomb: bytes) -> None:
    assert "100000 pixels" in refused(bomb, PayloadTooLarge)


def test_jpeg_with_a_second_larger_frame_header_is_refused() -> None:
    data = encode(noise(), "JPEG")
    frame = data.find(b"\xff\xc0")
    second = data[frame : frame + 5] + struct.pack(">HH", 65_000, 65_000) + data[frame + 9 : frame + 19]
    assert "contradictory" in refused(data[: frame + 19] + second + data[frame + 19 :])


def test_jpeg_of_endless_scans_is_refused_with_the_limit() -> None:
    data = encode(noise(), "JPEG", progressive=True)
    scan = data.find(b"\xff\xda")
    assert "64" in refused(data[:scan] + data[scan:-2] * 40)


def grey_tiff(**changes: tuple[int, int, int]) -> bytes:
    tags = {
        WIDTH: (SHORT, 1, 16),
        HEIGHT: (SHORT, 1, 16),
        BITS: (SHORT, 1, 8),
        COMPRESSION: (SHORT, 1, 1),
        PHOTOMETRIC: (SHORT, 1, 1),
        OFFSETS: (LONG, 1, 8 + 2 + 9 * 12 + 4),
        SAMPLES: (SHORT, 1, 1),
        ROWS: (SHORT, 1, 16),
        COUNTS: (LONG, 1, 256),
    }
    named = {int(name[1:]): value for name, value in changes.items()}
    return tiff(tags | named, bytes(range(256)))


def test_plain_tiff_is_read() -> None:
    assert np.array_equal(read(grey_tiff()).pixels[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize(
    "changes",
    [
        {"_273": (LONG, 1, 0xFFFFFFF0)},
        {"_273": (LONG, 0xFFFFFFFF, 8)},
        {"_278": (LONG, 1, 0xFFFFFFFF), "_279": (LONG, 1, 0xFFFFFFFF), "_259": (SHORT, 1, 8)},
        {"_279": (LONG, 1, 0), "_259": (SHORT, 1, 5)},
        {"_258": (SHORT, 1, 7)},
        {"_277": (SHORT, 1, 60_000)},
        {"_322": (LONG, 1, 1 << 30), "_323": (LONG, 1, 1 << 30)},
        {"_322": (LONG, 1, 16_000), "_323": (LONG, 1, 16_000), "_324": (LONG, 1, 8), "_259": (SHORT, 1, 8)},
        {"_282": (5, 30, 8), "_270": (2, 1 << 30, 8)},
        {"_256": (2, 4, 0)},
    ],
)
def test_tiff_with_absurd_tags_is_refused(changes: dict[str, tuple[int, int, int]]) -> None:
    refused(grey_tiff(**changes))


def test_tiff_with_a_long_list_of_numbers_is_refused_with_the_limit() -> None:
    data = grey_tiff(_282=(5, 5000, 8)) + bytes(50_000)
    assert "4096" in refused(data)


def test_orientation_in_a_hostile_exif_block_is_not_read() -> None:
    entries = b"".join(struct.pack("<HHII", tag, 1, 60_000, 8) for tag in range(40_000, 45_000))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 5000) + entries
    assert read(encode(noise(), "JPEG", exif=exif)).width == 32


def apng() -> bytes:
    return encode(noise(), save_all=True, append_images=[Image.fromarray(noise(seed=1))])


def animated_webp() -> bytes:
    return encode(noise(), "WEBP", save_all=True, append_images=[Image.fromarray(noise(seed=1))])


def paged_tiff() -> bytes:
    return encode(noise(), "TIFF", save_all=True, append_images=[Image.fromarray(noise(seed=1))])


@pytest.mark.parametrize("data", [apng(), animated_webp(), paged_tiff()])
def test_animated_and_paged_files_are_refused_with_the_limit(data: bytes) -> None:
    assert "the limit is one picture" in refused(data)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 100), (100, 7)])
def test_tiny_pictures_are_refused_with_the_limit(height: int, width: int) -> None:
    assert "at least 8 px" in refused(encode(noise(height, width)))


def test_extreme_aspect_is_refused_with_the_limit() -> None:
    assert "32 times" in refused(encode(noise(8, 8 * 32 + 1)))
    assert read(encode(noise(8, 8 * 32))).width == 256


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_truncated_files_are_refused_with_their_field(format: str) -> None:
    data = encode(noise(64, 64), format)
    for share in (0.1, 0.5, 0.9):
        refused(data[: int(len(data) * share)])


def test_a_text_bomb_in_a_png_is_refused() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    data = encode(noise())
    refused(data[:33] + bomb + data[33:])


def seeds() -> list[bytes]:
    pixels = noise()
    deep = np.random.default_rng(2).integers(0, 65536, (24, 32), np.uint16)
    return [
        encode(pixels),
        encode(deep),
        encode(noise(channels=4)),
        encode(pixels, "JPEG"),
        encode(pixels, "JPEG", progressive=True),
        encode(pixels, "WEBP"),
        encode(pixels, "WEBP", lossless=True, exif=Image.Exif(), xmp=b"<x/>"),
        encode(pixels, "TIFF"),
        encode(pixels, "TIFF", compression="tiff_lzw"),
        encode(pixels, "TIFF", compression="jpeg"),
        encode(deep, "TIFF"),
        encode(pixels, "BMP"),
        encode(Image.fromarray(pixels).convert("P"), "BMP"),
    ]


SEEDS = seeds()


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_mutated_files_are_read_or_refused(data: st.DataObject) -> None:
    file = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 8))):
        head = data.draw(st.booleans())
        file[data.draw(st.integers(0, min(len(file) - 1, 80 if head else len(file) - 1)))] = data.draw(
            st.integers(0, 255)
        )
    read_or_refuse(
        bytes(file[: data.draw(st.integers(1, len(file)))] if data.draw(st.booleans()) else file), LIMITS
    )


PREFIXES = [
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"RIFF\0\0\0\0WEBPVP8X",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"BM",
]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([*PREFIXES, bytes(128) + b"DICM"]), st.binary(max_size=400))
def test_random_bytes_are_read_or_refused(prefix: bytes, rest: bytes) -> None:
    read_or_refuse(prefix + rest, LIMITS)
