"""Picture files of any origin to 8-bit RGB(A) arrays.

The file is not trusted: its kind is taken from its bytes, its size checked before anything is decoded, and only
the decoder of that kind runs. ICC profiles are ignored, as they were when the model was trained. Decoding takes
at most some 16 bytes of memory per pixel.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from services.errors import InvalidImage, InvalidInput, MedMaxError, PayloadTooLarge
from services.tokenizer.dicom import read_dicom
from services.tokenizer.headers import Header, read_header, sniff
from services.tokenizer.limits import FIELD, Limits
from services.tokenizer.window import VOIFunction, Window, map_values, stretch

# Both quote numbers of the file on standard error; what matters becomes an error here.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.|pydicom\.")

READERS: dict[str, Callable[[BytesIO], ImageFile]] = {
    "png": PngImageFile,
    "jpeg": JpegImageFile,
    "webp": WebPImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "bmp": BmpImageFile,
}
DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I", "F"})


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright.

    Attributes:
        pixels: uint8 [H,W,3], or [H,W,4] with alpha (not premultiplied).
        format: "png", "jpeg", "webp", "tiff", "bmp" or "dicom".
    """

    pixels: NDArray[np.uint8]
    format: str

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def read_picture(data: bytes, limits: Limits, window: Window | None = None) -> Picture:
    """The picture in `data`.

    Args:
        window: for DICOM and for grey pictures of more than 8 bits; the file's own or the full range otherwise.

    Raises:
        InvalidImage: no picture, damaged, or of an unsupported kind.
        PayloadTooLarge: more bytes or pixels than `limits` allow.
        InvalidInput: a window for an 8-bit picture.
    """
    limits.check_bytes(data)
    kind = sniff(data)
    if kind == "dicom":
        return Picture(read_dicom(data, limits, window), kind)
    header = read_header(data, kind)
    limits.check_size(header.width, header.height)
    try:
        return Picture(_decode(header, window), kind)
    except MedMaxError:
        raise
    except Image.DecompressionBombError:
        raise PayloadTooLarge("more pixels than the decoder takes", field=FIELD) from None
    except Exception:  # decoders meet hostile bytes with exceptions of every type
        raise InvalidImage(f"damaged, truncated or unsupported {kind.upper()} file", field=FIELD) from None


def _decode(header: Header, window: Window | None) -> NDArray[np.uint8]:
    with READERS[header.format](BytesIO(header.body)) as image:
        # The decoder's own idea of the size decides what it allocates.
        if sorted(image.size) != sorted((header.width, header.height)):
            raise InvalidImage(f"contradictory sizes in the {header.format.upper()} header", field=FIELD)
        image.load()
        if image.mode in DEEP_MODES:
            pixels = _grey(np.asarray(image), window, header.white_is_zero)
        elif window is not None:
            raise InvalidInput("only for DICOM and grey pictures of more than 8 bits", field="window")
        else:
            pixels = np.asarray(_colour(image))
    return _turn(pixels, header.orientation)


def _grey(values: NDArray[Any], window: Window | None, white_is_zero: bool) -> NDArray[np.uint8]:
    if window is None:
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        grey = map_values(values, lambda band: stretch(band, low, high))
    else:
        grey = map_values(values, lambda band: window.apply(band, VOIFunction.LINEAR_EXACT))
    if white_is_zero:
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=2)


def _colour(image: Image.Image) -> Image.Image:
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    transparent = image.mode in {"LA", "PA", "RGBA", "RGBa", "La"} or "transparency" in image.info
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA" if transparent else "RGB")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    if converted is None:
        raise InvalidImage("LAB colours could not be converted", field=FIELD)
    return converted


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
