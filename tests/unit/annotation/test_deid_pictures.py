"""Pictures: burned-in text is covered, metadata goes, and what cannot be judged is held."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from annotation.core import Item, Kind, Picture, Region, Turn, Verdict
from annotation.deid import Category, Deidentifier, RapidReader
from annotation.deid.ocr import Line
from annotation.deid.pictures import clean_picture
from evaluation.phantoms import draw
from services.decoder.files import FileOptions, Format, write_picture
from services.decoder.marking import Origin, is_synthetic
from services.tokenizer.limits import Limits
from services.tokenizer.pictures import read_picture
from tests.support.pictures import dicom, encode

LIMITS = Limits(1 << 22, 4_000_000)
ORIGIN = Origin("phantom", "ab" * 32)


class NoText:
    """A reader for tests of what has nothing to do with text."""

    def read(self, pixels: NDArray[np.uint8]) -> list[Line]:
        return []


@pytest.fixture(scope="module")
def reader() -> RapidReader:
    return RapidReader()


def phantom(size: int = 256, seed: int = 3) -> Image.Image:
    return Image.fromarray(draw(seed).picture).resize((size, size))


def lettered(*lines: str, size: int = 256, level: int = 240, height: int = 14) -> NDArray[np.uint8]:
    image = phantom(size)
    pen = ImageDraw.Draw(image)
    for index, line in enumerate(lines):
        pen.text((6, 6 + index * (height + 8)), line, fill=(level,) * 3, font=ImageFont.load_default(height))
    return np.asarray(image)


def cleaned_item(data: bytes, by: Deidentifier, **picture: bool):  # type: ignore[no-untyped-def]
    shown = Picture(hashlib.sha256(data).hexdigest(), data, **picture)
    item = Item(
        "i",
        Kind.CHAT,
        (Turn("user", (shown, "What is shown?")),),
        ("A chest film.",),
        model_id="m",
        model_digest="d" * 64,
    )
    return by.clean(item)


def test_burned_in_text_is_covered_and_the_rest_is_left(reader: RapidReader) -> None:
    pixels = lettered("GONZALEZ MARIA", "DOB 12/03/1956")
    result = cleaned_item(encode(pixels), Deidentifier(reader))
    assert result.held is None
    assert result.report.counts == {Category.PICTURE_TEXT: 2}
    after = read_picture(result.item.pictures[0].data, LIMITS).pixels
    assert reader.read(after) == []
    assert (after[80:] == pixels[80:]).all()


def test_a_side_marker_stays(reader: RapidReader) -> None:
    pixels = lettered("R", height=24)
    result = clean_picture(encode(pixels), LIMITS, reader, None)
    assert (result.masked, result.held) == (0, None)
    assert (read_picture(result.data, LIMITS).pixels == pixels).all()


def test_text_in_a_large_picture_is_found_in_tiles(reader: RapidReader) -> None:
    image = phantom(1500)
    ImageDraw.Draw(image).text(
        (1180, 1440), "COHEN DAVID 1931", fill=(250, 250, 250), font=ImageFont.load_default(16)
    )
    result = clean_picture(encode(image), LIMITS, reader, None)
    assert result.masked >= 1
    assert result.held is None


def test_a_page_of_text_is_held(reader: RapidReader) -> None:
    image = Image.new("RGB", (300, 200), "white")
    for row in range(6):
        ImageDraw.Draw(image).text(
            (8, 6 + 32 * row), "Patient seen by Dr Cohen", fill="black", font=ImageFont.load_default(24)
        )
    assert "document" in (clean_picture(encode(image), LIMITS, reader, None).held or "")


def test_without_a_reader_every_picture_is_held_and_text_alone_is_not() -> None:
    by = Deidentifier()
    assert "no reader" in (cleaned_item(encode(phantom()), by).held or "")
    assert by.clean(Item("i", Kind.CHAT, (Turn("user", ("Is there a mass?",)),), ("No.",))).held is None


def test_text_that_is_left_after_masking_is_held() -> None:
    class Stubborn:
        def read(self, pixels: NDArray[np.uint8]) -> list[Line]:
            return [Line(4, 4, 30, 12, "COHEN", 0.9)]

    assert "left" in (clean_picture(encode(phantom()), LIMITS, Stubborn(), None).held or "")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_metadata_goes_and_pixels_stay(format: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "Gonzalez Maria"
    exif[ExifTags.Base.Artist] = "Gonzalez"
    info = PngInfo()
    info.add_text("Comment", "Gonzalez")
    options = {"exif": exif}
    if format == "PNG":
        options |= {"pnginfo": info, "icc_profile": b"Gonzalez profile"}  # type: ignore[dict-item]
    if format == "JPEG":
        options |= {"comment": b"Gonzalez", "xmp": b"<x>Gonzalez</x>"}  # type: ignore[dict-item]
    data = encode(phantom(), format, **options)
    assert b"Gonzalez" in data
    result = clean_picture(data, LIMITS, NoText(), None)
    assert result.held is None
    assert b"Gonzalez" not in result.data
    with Image.open(BytesIO(result.data)) as image:
        assert (image.format, image.info, dict(image.getexif())) == ("PNG", {}, {})
    assert (read_picture(result.data, LIMITS).pixels == read_picture(data, LIMITS).pixels).all()


def test_what_hides_below_transparent_pixels_goes() -> None:
    pixels = np.dstack([lettered("GONZALEZ"), np.zeros((256, 256), np.uint8)])
    after = read_picture(clean_picture(encode(pixels), LIMITS, NoText(), None).data, LIMITS).pixels
    assert after.shape == (256, 256, 3)
    assert (after == 255).all()


@pytest.mark.parametrize("format", list(Format))
def test_a_generated_picture_still_says_so(format: Format) -> None:
    data = write_picture(np.asarray(phantom()), FileOptions(format), ORIGIN).data
    drawn = cleaned_item(data, Deidentifier(NoText()), synthetic=True).item.pictures[0]
    uploaded = cleaned_item(data, Deidentifier(NoText())).item.pictures[0]
    assert is_synthetic(drawn.data)
    assert b"Model m, weights" in drawn.data
    assert is_synthetic(uploaded.data)
    assert ORIGIN.digest.encode() not in uploaded.data


def test_the_visible_mark_of_a_generated_picture_stays(reader: RapidReader) -> None:
    data = write_picture(np.asarray(phantom(512)), FileOptions(visible_mark=True), ORIGIN).data
    result = clean_picture(data, LIMITS, reader, ORIGIN)
    assert (result.masked, result.held) == (0, None)


def test_a_photograph_by_a_camera_is_held() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Acme"
    assert "photograph" in (
        clean_picture(encode(phantom(), "JPEG", exif=exif), LIMITS, NoText(), None).held or ""
    )


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, "none was found"),
        ({"RecognizableVisualFeatures": "YES"}, "recognisable"),
        ({"Modality": "XC"}, "photograph"),
        ({"NumberOfFrames": 2}, "cannot be read"),
    ],
)
def test_a_dicom_file_whose_header_warns_is_held(attributes: dict[str, object], reason: str) -> None:
    data = dicom(np.asarray(phantom())[..., 0], **attributes)
    assert reason in (clean_picture(data, LIMITS, NoText(), None).held or "")


def test_a_dicom_file_leaves_as_a_png_of_its_pixels(reader: RapidReader) -> None:
    data = dicom(lettered("GONZALEZ MARIA")[..., 0], PatientName="Doe^Jane")
    result = cleaned_item(data, Deidentifier(reader))
    assert result.held is None
    shown = result.item.pictures[0]
    assert shown.data.startswith(b"\x89PNG")
    assert b"Doe" not in shown.data
    assert shown.sha256 == hashlib.sha256(shown.data).hexdigest()


def test_cleaning_an_item_again_changes_nothing(reader: RapidReader) -> None:
    by = Deidentifier(reader)
    once = cleaned_item(encode(lettered("GONZALEZ MARIA")), by)
    again = by.clean(once.item)
    assert (again.item, again.report.findings, again.held) == (once.item, (), None)


@pytest.mark.parametrize(
    "data", [b"", b"no picture", encode(phantom())[:300], dicom(np.zeros((16, 16), np.uint8))[:-99]]
)
def test_what_is_no_picture_is_held(data: bytes) -> None:
    result = cleaned_item(data, Deidentifier(NoText()))
    assert "cannot be read" in (result.held or "")
    assert result.item.pictures[0].data is None


def test_pictures_without_their_file_or_of_another_digest_are_held() -> None:
    by = Deidentifier(NoText())
    for picture, reason in (
        (Picture("a" * 64), "without its file"),
        (Picture("a" * 64, encode(phantom())), "digest"),
    ):
        assert reason in (
            by.clean(Item("i", Kind.PICTURE, (Turn("user", ("Draw.",)),), (picture,))).held or ""
        )


def test_regions_follow_their_picture_and_their_masks_lose_metadata() -> None:
    data = encode(phantom())
    shown = Picture(hashlib.sha256(data).hexdigest(), data)
    info = PngInfo()
    info.add_text("Comment", "Gonzalez")
    mask = encode(Image.new("L", (256, 256), 255), pnginfo=info)
    region = Region(shown.sha256, "mass, see Dr. Gonzalez", 0, 0, 1, 1, mask)
    gold = Verdict(
        text="Seen 12/03/2021", regions=(region,), comment="ask Mrs. Gonzalez", missing=("MRN 004829",)
    )
    result = Deidentifier(NoText()).clean(
        Item("i", Kind.REPORT, (Turn("user", (shown,)),), ("A mass.",), gold=gold)
    )
    after = result.item.gold
    assert after is not None
    assert (after.text, after.comment, after.missing) == ("Seen [DATE]", "ask Mrs. [NAME]", ("MRN [RECORD]",))
    assert after.regions[0].picture == result.item.pictures[0].sha256
    assert after.regions[0].label == "mass, see Dr. [NAME]"
    assert b"Gonzalez" not in (after.regions[0].mask or b"")
    assert {finding.where for finding in result.report.findings} >= {"gold.text", "gold.regions[0].label"}
