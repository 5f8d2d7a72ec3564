"""Single-frame DICOM files to 8-bit RGB, as a viewer with the file's own settings shows them.

Grey: stored value → modality (rescale or modality LUT) → VOI (LUT, window, or full range) → inverted for
MONOCHROME1; padding is black. Without a window, pictures of 8 stored bits are shown as they are and deeper ones
stretched over the range that occurs. No message holds anything of the file but sizes and names of elements.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi, convert_color_space

from services.errors import InvalidImage, InvalidInput, MedMaxError
from services.tokenizer.dicom_elements import read_elements
from services.tokenizer.dicom_pixels import GREY, PALETTE, Layout, stored_values
from services.tokenizer.limits import FIELD, Limits
from services.tokenizer.window import BAND_VALUES, VOIFunction, Window, map_values, stretch, to_grey

# pydicom's log lines and warnings quote values of the file.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

MAX_SEGMENTED_ENTRIES = 1 << 16


def read_dicom(data: bytes, limits: Limits, window: Window | None = None) -> NDArray[np.uint8]:
    """The picture of a DICOM file as uint8 [rows, columns, 3].

    Args:
        window: instead of the header's own window or LUT.

    Raises:
        InvalidImage: damaged, without pixels, of several frames, or of an unsupported kind.
        PayloadTooLarge: over the pixel limit.
        InvalidInput: a window for a colour picture.
    """
    try:
        with np.errstate(all="ignore"):
            return _read(data, limits, window)
    except MedMaxError:
        raise
    except Exception:  # pydicom meets hostile bytes with exceptions of every type
        raise InvalidImage("damaged or unsupported DICOM file", field=FIELD) from None


def _read(data: bytes, limits: Limits, window: Window | None) -> NDArray[np.uint8]:
    dataset, syntax = read_elements(data, limits)
    layout = Layout.read(dataset, limits)
    if window is not None and layout.photometric not in GREY:
        raise InvalidInput("only for grey pictures; this DICOM file is in colour", field="window")
    values, photometric = stored_values(dataset, syntax, layout)
    if layout.photometric == PALETTE:
        return _palette(values, dataset)
    if layout.photometric not in GREY:
        return _colour(values, photometric, layout.stored)
    grey = map_values(values, _display(values, dataset, layout, window))
    return np.repeat(grey[..., None], 3, axis=2)


def _display(
    values: NDArray[Any], dataset: Dataset, layout: Layout, window: Window | None
) -> Callable[[NDArray[np.float64]], NDArray[np.uint8]]:
    """Function from stored values to display grey."""
    padding = _padding(dataset, layout)
    voi = _voi(values, dataset, layout, window, padding)

    def display(stored: NDArray[np.float64]) -> NDArray[np.uint8]:
        grey = voi(stored)
        if layout.photometric == "MONOCHROME1":
            grey = 255 - grey
        if padding is not None:
            grey[(stored >= padding[0]) & (stored <= padding[1])] = 0
        return grey

    return display


def _voi(
    values: NDArray[Any],
    dataset: Dataset,
    layout: Layout,
    window: Window | None,
    padding: tuple[float, float] | None,
) -> Callable[[NDArray[np.float64]], NDArray[np.uint8]]:
    modality = _modality(dataset, layout)
    if window is None and dataset.get("VOILUTSequence"):
        return _voi_lut(dataset, modality)
    function = _function(dataset)
    chosen = window or _header_window(dataset, function)
    if chosen is not None:
        return lambda stored: chosen.apply(modality(stored), function)
    if layout.stored == 8 and not layout.signed and not dataset.get("ModalityLUTSequence"):
        return lambda stored: to_grey(stored / 255)
    low, high = _range(values, padding)
    ends = modality(np.array([low, high]))
    if dataset.get("ModalityLUTSequence"):
        ends = modality(np.arange(low, high + 1))
    return lambda stored: stretch(modality(stored), float(ends.min()), float(ends.max()))


def _modality(dataset: Dataset, layout: Layout) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    if dataset.get("ModalityLUTSequence"):
        if layout.floating or layout.allocated > 16:
            raise InvalidImage("a modality LUT needs at most 16 bits", field=FIELD)
        return lambda stored: np.asarray(apply_modality_lut(stored.astype(np.int64), dataset), np.float64)
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    return lambda stored: stored * slope + intercept


def _voi_lut(
    dataset: Dataset, modality: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Callable[[NDArray[np.float64]], NDArray[np.uint8]]:
    bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
    if not 8 <= bits <= 16:
        raise InvalidImage("a VOI LUT needs 8 to 16 bits", field=FIELD)
    full = float((1 << bits) - 1)

    def look_up(stored: NDArray[np.float64]) -> NDArray[np.uint8]:
        index = np.clip(np.rint(modality(stored)), -(2**31), 2**31).astype(np.int64)
        return to_grey(np.asarray(apply_voi(index, dataset), np.float64) / full)

    return look_up


def _header_window(dataset: Dataset, function: VOIFunction) -> Window | None:
    """The first window of the header; none where it is missing or of no use (a width of 0 is common)."""
    if _first(dataset, "WindowCenter") is None or _first(dataset, "WindowWidth") is None:
        return None
    try:
        return Window(_number(dataset, "WindowCenter", 0.0), _number(dataset, "WindowWidth", 0.0))
    except InvalidInput:
        return None


def _function(dataset: Dataset) -> VOIFunction:
    try:
        return VOIFunction(str(_first(dataset, "VOILUTFunction") or "LINEAR").strip())
    except ValueError:
        raise InvalidImage("VOILUTFunction must be LINEAR, LINEAR_EXACT or SIGMOID", field=FIELD) from None


def _first(dataset: Dataset, keyword: str) -> Any:
    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return None if value == "" else value


def _number(dataset: Dataset, keyword: str, default: float) -> float:
    value = _first(dataset, keyword)
    number = default if value is None else float(value)
    if not math.isfinite(number) or abs(number) > 1e12:
        raise InvalidImage(f"DICOM element {keyword} must lie between -1e12 and 1e12", field=FIELD)
    return number


def _padding(dataset: Dataset, layout: Layout) -> tuple[float, float] | None:
    value, limit = _first(dataset, "PixelPaddingValue"), _first(dataset, "PixelPaddingRangeLimit")
    if value is None or layout.floating:
        return None
    ends = [_wrap(int(end), layout) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _wrap(value: int, layout: Layout) -> float:
    # Written as US or SS whatever the pixels are: take the bits as the pixels take theirs.
    bits = value & ((1 << layout.stored) - 1)
    return float(bits - (1 << layout.stored) if layout.signed and bits >> (layout.stored - 1) else bits)


def _range(values: NDArray[Any], padding: tuple[float, float] | None) -> tuple[float, float]:
    low, high = math.inf, -math.inf
    rows = max(1, BAND_VALUES // values.shape[1])
    for top in range(0, values.shape[0], rows):
        band = values[top : top + rows]
        if values.dtype.kind == "f":
            band = band[np.isfinite(band)]
        elif padding is not None:
            band = band[(band < padding[0]) | (band > padding[1])]
        if band.size:
            low, high = min(low, float(band.min())), max(high, float(band.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _colour(values: NDArray[Any], photometric: str, stored: int) -> NDArray[np.uint8]:
    rows, columns, samples = values.shape
    if photometric in ("YBR_FULL", "YBR_FULL_422"):
        rgb = np.empty(values.shape, np.uint8)
        step = max(1, BAND_VALUES // (columns * samples))
        for top in range(0, rows, step):
            rgb[top : top + step] = convert_color_space(values[top : top + step], photometric, "RGB")
        return rgb
    full = float((1 << stored) - 1)
    flat = np.ascontiguousarray(values).reshape(rows, columns * samples)
    scaled = map_values(flat, lambda band: to_grey(band / full))
    return scaled.reshape(rows, columns, samples)


def _palette(values: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    for colour in ("Red", "Green", "Blue"):
        segments = dataset.get(f"Segmented{colour}PaletteColorLookupTableData")
        if segments is not None:
            check_segments(bytes(segments), int(dataset.RedPaletteColorLookupTableDescriptor[2]))
    bits = values.dtype.itemsize * 8
    codes = np.arange(1 << bits, dtype=f"u{bits // 8}").view(values.dtype)
    table = apply_color_lut(codes[None], dataset)[0]
    if table.dtype.itemsize == 2:
        table = to_grey(table / 65535.0)
    rgb: NDArray[np.uint8] = np.asarray(table, np.uint8)[values.view(f"u{bits // 8}")]
    return rgb


def check_segments(data: bytes, bits: int) -> None:
    """Refuses a segmented palette that expands beyond 65536 entries, or holds indirect segments.

    Raises:
        InvalidImage: as said.
    """
    words = np.frombuffer(data, "<u2" if bits == 16 else "u1")
    position = entries = 0
    while position + 1 < len(words):
        kind, length = int(words[position]), int(words[position + 1])
        if kind > 1:
            raise InvalidImage("palette with indirect segments is not supported", field=FIELD)
        entries += length
        position += 2 + (length if kind == 0 else 1)
        if entries > MAX_SEGMENTED_ENTRIES:
            raise InvalidImage(f"palette of more than {MAX_SEGMENTED_ENTRIES} entries", field=FIELD)
