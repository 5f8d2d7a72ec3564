"""Display windows: modality values (Hounsfield and the like) to 8-bit grey."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInput

BAND_VALUES = 1 << 22
"""Values turned into float64 at a time (32 MiB each)."""


class VOIFunction(StrEnum):
    """DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True)
class Window:
    """Centre and width in modality units, after rescale.

    Raises:
        InvalidInput: not finite, or a width that is not positive.
    """

    center: float
    width: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.center) or abs(self.center) > 1e12:
            raise InvalidInput("must be a finite number between -1e12 and 1e12", field="window.center")
        if not math.isfinite(self.width) or not 0 < self.width <= 1e12:
            raise InvalidInput("must be greater than 0 and at most 1e12", field="window.width")

    def apply(
        self, values: NDArray[np.float64], function: VOIFunction = VOIFunction.LINEAR
    ) -> NDArray[np.uint8]:
        """Grey 0-255 of the same shape. LINEAR needs a width of 1; below it LINEAR_EXACT is used."""
        center, width = self.center, self.width
        if function is VOIFunction.SIGMOID:
            exponent = np.clip(-4 * (values - center) / width, -700, 700)
            return to_grey(1 / (1 + np.exp(exponent)))
        if function is VOIFunction.LINEAR and width > 1:
            center, width = center - 0.5, width - 1
        elif function is VOIFunction.LINEAR and width == 1:
            return to_grey((values > center - 0.5).astype(np.float64))
        return to_grey((values - center) / width + 0.5)


def stretch(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """Grey with `low` black and `high` white; all black where they are equal."""
    return to_grey((values - low) / (high - low)) if high > low else np.zeros(values.shape, np.uint8)


def to_grey(fraction: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Fractions of full scale to 0-255, rounded half up, clipped; NaN becomes 0."""
    scaled = np.nan_to_num(fraction, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    grey: NDArray[np.uint8] = np.floor(scaled * 255 + 0.5).astype(np.uint8)
    return grey


def map_values(
    stored: NDArray[Any], display: Callable[[NDArray[np.float64]], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """`display` of every element of `stored` [H,W], in bounded memory.

    Integers of 8 and 16 bits go through a table of all possible values, others band by band.
    """
    kind, bits = stored.dtype.kind, stored.dtype.itemsize * 8
    if kind in "iu" and bits <= 16:
        unsigned = stored.view(stored.dtype.newbyteorder("=").str.replace("i", "u"))
        codes = np.arange(1 << bits, dtype=f"u{bits // 8}")
        table = display(codes.view(f"{kind}{bits // 8}").astype(np.float64))
        looked_up: NDArray[np.uint8] = table[unsigned]
        return looked_up
    grey = np.empty(stored.shape, np.uint8)
    rows = max(1, BAND_VALUES // stored.shape[1])
    for top in range(0, stored.shape[0], rows):
        grey[top : top + rows] = display(stored[top : top + rows].astype(np.float64))
    return grey
