"""What a picture may measure at most, and at least."""

from __future__ import annotations

from dataclasses import dataclass

from services.config import Settings
from services.errors import InvalidImage, PayloadTooLarge

FIELD = "image"
MIN_EDGE = 8
MAX_ASPECT = 32
FORMATS = "PNG, JPEG, WebP, TIFF, BMP or single-frame DICOM"


@dataclass(frozen=True)
class Limits:
    """Bytes of the file and pixels of the picture; edges and aspect ratio are fixed.

    A picture's short edge is at least `MIN_EDGE` px and its long edge at most `MAX_ASPECT` times that: the
    resampled strip between the two would otherwise take memory without bound.
    """

    max_bytes: int
    max_pixels: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Limits:
        return cls(settings.max_image_bytes, settings.max_image_pixels)

    def check_bytes(self, data: bytes) -> None:
        """Raises: InvalidImage if there are none, PayloadTooLarge if there are too many."""
        if not data:
            raise InvalidImage(f"empty; expected a {FORMATS} file", field=FIELD)
        if len(data) > self.max_bytes:
            raise PayloadTooLarge(
                f"{len(data)} bytes; the limit is {self.max_bytes} (MEDMAX_MAX_IMAGE_BYTES)", field=FIELD
            )

    def check_size(self, width: int, height: int) -> None:
        """Raises: PayloadTooLarge for too many pixels, InvalidImage for an edge or aspect out of range."""
        if width * height > self.max_pixels:
            raise PayloadTooLarge(
                f"{width} x {height} px; the limit is {self.max_pixels} pixels (MEDMAX_MAX_IMAGE_PIXELS)",
                field=FIELD,
            )
        short, long = min(width, height), max(width, height)
        if short < MIN_EDGE:
            raise InvalidImage(f"{width} x {height} px; an edge needs at least {MIN_EDGE} px", field=FIELD)
        if long > MAX_ASPECT * short:
            raise InvalidImage(
                f"{width} x {height} px; the long edge may be at most {MAX_ASPECT} times the short one",
                field=FIELD,
            )
