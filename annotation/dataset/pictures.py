"""Pictures of judgements as files of a data set.

Each is written again from its pixels, as PNG: of a DICOM or a camera's file nothing but what is seen goes into a data set.
Of a picture that a model drew the metadata, and the file's name, say so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from annotation.core import Picture
from annotation.dataset.prints import picture_print, pixel_digest
from annotation.dataset.staging import Staging
from annotation.dataset.text import Refused
from services.decoder.marking import SOFTWARE, Origin, is_synthetic
from services.errors import InvalidImage, PayloadTooLarge
from services.tokenizer.limits import Limits
from services.tokenizer.pictures import read_picture

FOLDER = "images"
_ORIGIN = Origin("as provenance.model_version says", "there")

Fetch = Callable[[str], bytes | None]
"""Bytes of a picture by its digest, None where they are gone."""


@dataclass(frozen=True)
class Taken:
    """`name`: path in the data set; `pixels`: digest; `print`: see `prints.picture_print`."""

    name: str
    pixels: str
    print: bytes


class Intake:
    """Takes each picture once.

    Args:
        folder: of the version that is being written.
    """

    def __init__(self, folder: Path, staging: Staging, limits: Limits, fetch: Fetch | None) -> None:
        self._folder, self._db, self._limits, self._fetch = folder, staging.db, limits, fetch
        (folder / FOLDER).mkdir()

    def take(self, picture: Picture) -> Taken:
        """Raises: Refused where its bytes are missing, damaged, too many or no picture."""
        source = f"{picture.sha256} {int(picture.synthetic)}"
        known = self._known(source)
        if known is None:
            known = self._new(source, picture)
        if isinstance(known, str):
            raise Refused(known)
        return known

    def print_of(self, pixels: str) -> bytes:
        """The print of a picture that was taken, by the digest of its pixels."""
        (print_,) = self._db.execute(
            "SELECT print FROM picture WHERE pixels = ? LIMIT 1", (pixels,)
        ).fetchone()
        return bytes(print_)

    def _known(self, source: str) -> Taken | str | None:
        found = self._db.execute(
            "SELECT name, pixels, print, refused FROM picture WHERE source = ?", (source,)
        ).fetchone()
        if found is None:
            return None
        return str(found[3]) if found[3] else Taken(*found[:3])

    def _new(self, source: str, picture: Picture) -> Taken | str:
        data = picture.data
        if data is None and self._fetch is not None:
            data = self._fetch(picture.sha256)
        if data is None:
            return "picture_missing"  # not remembered: another judgement may bring the bytes
        if hashlib.sha256(data).hexdigest() != picture.sha256:
            return "picture_damaged"
        taken = self._written(picture, data)
        values = (
            ("", "", b"", taken) if isinstance(taken, str) else (taken.name, taken.pixels, taken.print, None)
        )
        self._db.execute("INSERT INTO picture VALUES (?, ?, ?, ?, ?)", (source, *values))
        return taken

    def _written(self, picture: Picture, data: bytes) -> Taken | str:
        try:
            read = read_picture(data, self._limits)
        except PayloadTooLarge:
            return "picture_too_large"
        except InvalidImage:
            return "picture_unreadable"
        pixels, synthetic = pixel_digest(read.pixels), picture.synthetic or is_synthetic(data)
        name = f"{FOLDER}/{pixels}{'-synthetic' if synthetic else ''}.png"
        png = as_png(read.pixels, synthetic)
        if len(png) > self._limits.max_bytes:
            return "picture_too_large"
        path = self._folder / name
        if not path.exists():
            write_synced(path, png)
        return Taken(name, pixels, picture_print(read.pixels))


def as_png(pixels: NDArray[np.uint8], synthetic: bool = False) -> bytes:
    """A PNG of uint8 [H,W,3 or 4] that holds nothing but the pixels and whether it is synthetic; grey ones take one channel."""
    if pixels.shape[2] == 3 and (pixels == pixels[..., :1]).all():
        pixels = np.ascontiguousarray(pixels[..., 0])
    about = PngInfo()
    if synthetic:
        about.add_itxt("XML:com.adobe.xmp", _ORIGIN.xmp.decode())
        about.add_itxt("Software", SOFTWARE)
    target = BytesIO()
    Image.fromarray(pixels).save(target, "PNG", pnginfo=about)
    return target.getvalue()


def write_synced(path: Path, data: bytes) -> None:
    """A new file, on disk when this returns."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
