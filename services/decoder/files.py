"""Pictures to files: size, format, quality and the marks of a synthetic picture."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from services.decoder.marking import SOFTWARE, Origin, draw_mark
from services.errors import InvalidInput

DEFAULT_QUALITY = 95
MIN_SIZE, MAX_SIZE = 16, 2048


class Format(StrEnum):
    """File formats of generated pictures."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def mime_type(self) -> str:
        return f"image/{self.value}"


@dataclass(frozen=True)
class FileOptions:
    """How a picture is written.

    Attributes:
        quality: 1-100, JPEG and WebP only.
        size: edge of the square result in pixels, 16-2048; None = the model's own.

    Raises:
        InvalidInput: out of range.
    """

    format: Format = Format.PNG
    quality: int | None = None
    visible_mark: bool = False
    size: int | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise InvalidInput(f"{self.quality}; must be from 1 to 100", field="quality")
        if self.size is not None and not MIN_SIZE <= self.size <= MAX_SIZE:
            raise InvalidInput(f"{self.size} px; must be from {MIN_SIZE} to {MAX_SIZE}", field="size")


@dataclass(frozen=True)
class PictureFile:
    """A written file and its size in pixels."""

    data: bytes
    mime_type: str
    width: int
    height: int


def write_picture(pixels: NDArray[np.uint8], options: FileOptions, origin: Origin) -> PictureFile:
    """uint8 [H,W,3] → file that says in its metadata that it is synthetic."""
    image = Image.fromarray(pixels)
    if options.size is not None and image.size != (options.size, options.size):
        image = image.resize((options.size, options.size), Image.Resampling.BICUBIC)
    if options.visible_mark:
        image = draw_mark(image)
    target = BytesIO()
    quality = options.quality or DEFAULT_QUALITY
    if options.format is Format.PNG:
        image.save(target, "PNG", pnginfo=_png_info(origin))
    elif options.format is Format.JPEG:
        image.save(target, "JPEG", quality=quality, subsampling=0, xmp=origin.xmp, exif=origin.exif)
    else:
        image.save(target, "WEBP", quality=quality, xmp=origin.xmp, exif=origin.exif)
    return PictureFile(target.getvalue(), options.format.mime_type, image.width, image.height)


def _png_info(origin: Origin) -> PngInfo:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", origin.xmp.decode())
    info.add_itxt("Description", origin.description)
    info.add_itxt("Software", SOFTWARE)
    return info
