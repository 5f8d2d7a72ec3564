"""Pictures without text and metadata: decoded, text masked, written anew as PNG."""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotation.deid.header import Risk, read_risk
from annotation.deid.ocr import Line, Reader
from services.decoder.files import FileOptions, write_picture
from services.decoder.marking import TEXT as MARK
from services.decoder.marking import Origin, is_synthetic
from services.errors import MedMaxError
from services.tokenizer.limits import Limits
from services.tokenizer.pictures import read_picture

HARMLESS = re.compile(
    rf"(?:[RLAPHFSI]|[RL]T|LEFT|RIGHT|AP|PA|LAT(?:ERAL)?|SUPINE|PRONE|ERECT|UPRIGHT|PORTABLE|MLO|CC|[RL](?:MLO|CC)|{MARK}"
    r"|\d{1,3}(?:[.,]\d)?\s?(?:CM|MM))[.,:]?",
    re.IGNORECASE,
)
"""Sides, projections, scales and the mark of generated pictures stay."""
SURE = 0.6
"""Confidence below which a harmless text counts as unread."""
MAX_TEXT_SHARE = 0.25
"""Of the picture under text: above, it is a document."""
ROUNDS = 3
MARGIN = 0.35
"""Of a line's height: masked around it."""
SHAPE_HEIGHT, SHAPE_CHARACTERS = 0.3, 3
"""A "line" of at most so many characters, taller than this share of the picture, is a shape that looks like a letter (a skull
read as C): too few characters to name anybody."""


@dataclass(frozen=True)
class CleanPicture:
    """A PNG file without metadata and text; `masked` lines were covered; `held` says why it must not be sent."""

    data: bytes
    masked: int
    held: str | None = None


def clean_picture(data: bytes, limits: Limits, reader: Reader | None, origin: Origin | None) -> CleanPicture:
    """The picture in `data` (PNG, JPEG, WebP, TIFF, BMP, DICOM) as a new PNG.

    Args:
        origin: of a generated picture, whose file then says so again.
    """
    try:
        risk = read_risk(data, limits)
        pixels = read_picture(data, limits).pixels
    except MedMaxError:
        return CleanPicture(b"", 0, "a picture that cannot be read")
    if risk.face:
        return CleanPicture(b"", 0, "a photograph by a camera, or a picture with recognisable features")
    if reader is None:
        return CleanPicture(b"", 0, "no reader for text on pictures is installed")
    masked, lines, left = mask(opaque(pixels), reader)
    if origin is None and is_synthetic(data):
        origin = Origin("unknown", "unknown")
    return CleanPicture(encode(masked, origin), len(lines), _doubt(masked, lines, left, risk))


def _doubt(pixels: NDArray[np.uint8], lines: list[Line], left: bool, risk: Risk) -> str | None:
    area = sum((line.right - line.left) * (line.bottom - line.top) for line in lines)
    if area > MAX_TEXT_SHARE * pixels.shape[0] * pixels.shape[1]:
        return "a document rather than a picture"
    if risk.declared_text and not lines:
        return "a picture that says it has burned-in text, of which none was found"
    return "text on a picture is left after masking" if left else None


def mask(pixels: NDArray[np.uint8], reader: Reader) -> tuple[NDArray[np.uint8], list[Line], bool]:
    """A copy of uint8 [H,W,3] with every line of text covered that is not `HARMLESS`, and those lines.

    Read again after covering, `ROUNDS` times at most, since a cover can bring out what it touches; the third value
    tells whether the last reading still found text.
    """
    masked = pixels.copy()
    covered: list[Line] = []
    for _ in range(ROUNDS):
        lines = _text(masked, reader)
        if not lines:
            return masked, covered, False
        for line in lines:
            _cover(masked, line)
        covered += lines
    return masked, covered, bool(_text(masked, reader))


def _text(pixels: NDArray[np.uint8], reader: Reader) -> list[Line]:
    return [line for line in reader.read(pixels) if not _harmless(line) and not _shape(line, pixels)]


def _cover(pixels: NDArray[np.uint8], line: Line) -> None:
    height, width = pixels.shape[:2]
    margin = max(2, round(MARGIN * min(line.bottom - line.top, line.right - line.left)))
    top, bottom = max(0, line.top - margin), min(height, line.bottom + margin)
    left, right = max(0, line.left - margin), min(width, line.right + margin)
    pixels[top:bottom, left:right] = _border(pixels, top, bottom, left, right)


def _border(pixels: NDArray[np.uint8], top: int, bottom: int, left: int, right: int) -> NDArray[np.uint8]:
    """The median colour around a box: the cover shows little, and nothing of what it covers."""
    box = pixels[top:bottom, left:right]
    edge = np.concatenate([box[0], box[-1], box[:, 0], box[:, -1]])
    return np.asarray(np.median(edge, axis=0), np.uint8)


def _harmless(line: Line) -> bool:
    return line.confidence >= SURE and HARMLESS.fullmatch(line.text.strip()) is not None


def _shape(line: Line, pixels: NDArray[np.uint8]) -> bool:
    tall = line.bottom - line.top > SHAPE_HEIGHT * pixels.shape[0]
    return tall and 0 < len(line.text.strip()) <= SHAPE_CHARACTERS


def opaque(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [H,W,3]: blended on white, so that nothing hides below a transparent pixel."""
    if pixels.shape[2] == 3:
        return pixels
    alpha = pixels[..., 3:].astype(np.float32) / 255
    return np.asarray(np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)), np.uint8)


def encode(pixels: NDArray[np.uint8], origin: Origin | None) -> bytes:
    """A PNG of pixels alone; of a generated picture, with its marks."""
    if origin is not None:
        return write_picture(pixels, FileOptions(), origin).data
    target = BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def encode_mask(data: bytes, limits: Limits) -> bytes:
    """The mask of a region, 8-bit grey, without metadata.

    Raises:
        InvalidImage, PayloadTooLarge: it cannot be read.
    """
    target = BytesIO()
    Image.fromarray(read_picture(data, limits).pixels[..., 0]).save(target, "PNG")
    return target.getvalue()
