"""Text on pictures: where it is and what it says."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.errors import ConfigurationError

TILE, OVERLAP = 1024, 128
"""Pixels: pictures larger than a tile are read in tiles, and once more as a whole, smaller."""
_ONE = Lock()
TALL, FEW = 0.3, 3
"""On a phantom the detector takes whole organs for a line: boxes taller than this share of the picture's shorter side,
in which fewer letters than this are read, are none."""
SAME = 0.3
"""Intersection over union from which two boxes are the same line."""
MIN_SIDE = 736
"""Shorter side in pixels to which the detector enlarges a smaller picture."""


@dataclass(frozen=True)
class Line:
    """A line of text: its box in pixels (right and bottom excluded), what it says and how sure that is, 0 to 1."""

    left: int
    top: int
    right: int
    bottom: int
    text: str
    confidence: float


class Reader(Protocol):
    """Finds text on a picture; the seam for other readers."""

    def read(self, pixels: NDArray[np.uint8]) -> list[Line]:
        """Lines on uint8 [H,W,3]; a line that was found and could not be read has an empty text."""
        ...


class RapidReader:
    """RapidOCR with the PP-OCR models of its wheel, on the CPU; nothing is downloaded.

    Every picture is read twice: as it is, and with its local contrast evened out (`flattened`), where organs vanish and
    faint text stands out. What the detector finds counts, whether or not it can be read.

    Raises:
        ConfigurationError: `rapidocr` or `onnxruntime` is not installed (the extra `deid`).
    """

    def __init__(self) -> None:
        self._engine = _engine()

    def read(self, pixels: NDArray[np.uint8]) -> list[Line]:
        height, width = pixels.shape[:2]
        step = max(1, -(-max(height, width) // TILE))
        lines = self._lines(_reduced(pixels, step), 0, 0, step)
        if step > 1:
            for top in _starts(height):
                for left in _starts(width):
                    tile = pixels[top : top + TILE, left : left + TILE]
                    lines = _merged(lines, self._lines(tile, left, top, 1))
        return lines

    def _lines(self, pixels: NDArray[np.uint8], left: int, top: int, scale: int) -> list[Line]:
        if min(pixels.shape[:2]) < 8:
            return []
        with _ONE:  # the engine is shared, and keeps what it is told to do
            found = _merged(self._found(pixels), self._found(flattened(pixels)))
        return [
            replace(
                line,
                left=left + line.left * scale,
                top=top + line.top * scale,
                right=left + line.right * scale,
                bottom=top + line.bottom * scale,
            )
            for line in found
        ]

    def _found(self, pixels: NDArray[np.uint8]) -> list[Line]:
        image = np.ascontiguousarray(pixels[..., ::-1])
        boxes = self._engine(image, use_det=True, use_cls=False, use_rec=False).boxes
        lines = []
        for box in () if boxes is None else boxes:
            x0, y0 = (int(value) for value in np.maximum(np.floor(box.min(0)), 0))
            x1, y1 = (int(value) for value in np.ceil(box.max(0) + 1))
            line = Line(x0, y0, x1, y1, *self._read(image[y0:y1, x0:x1]))
            if not _organ(line, min(pixels.shape[:2])):
                lines.append(line)
        return lines

    def _read(self, image: NDArray[np.uint8]) -> tuple[str, float]:
        if min(image.shape[:2]) < 2:
            return "", 0.0
        read = self._engine(image, use_det=False, use_cls=False, use_rec=True)
        return (str(read.txts[0]).strip(), float(read.scores[0])) if read.txts else ("", 0.0)


def flattened(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [H,W,3], grey: deviations from the mean around each pixel, in standard deviations there."""
    from scipy import ndimage

    grey = pixels.mean(2, dtype=np.float32)
    size = 2 * max(4, min(grey.shape) // 16) + 1
    deviation = grey - ndimage.uniform_filter(grey, size)
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(deviation**2, size), 0))
    flat = np.clip(128 + 45 * deviation / (spread + 8), 0, 255).astype(np.uint8)
    return np.repeat(flat[..., None], 3, 2)


def _organ(line: Line, side: int) -> bool:
    return line.bottom - line.top > TALL * side and sum(map(str.isalnum, line.text)) < FEW


def _merged(lines: list[Line], more: list[Line]) -> list[Line]:
    """`lines`, and those of `more` that are not among them."""
    return lines + [line for line in more if not any(_overlap(line, other) >= SAME for other in lines)]


def _overlap(a: Line, b: Line) -> float:
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    both = max(0, width) * max(0, height)
    areas = [(line.right - line.left) * (line.bottom - line.top) for line in (a, b)]
    return both / (sum(areas) - both)


def _starts(length: int) -> list[int]:
    """Of the fewest tiles that overlap and cover `length` pixels, evenly spread."""
    if length <= TILE:
        return [0]
    count = -(-(length - OVERLAP) // (TILE - OVERLAP))
    return [round(index * (length - TILE) / (count - 1)) for index in range(count)]


def _reduced(pixels: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Means of `step` x `step` pixels."""
    if step == 1:
        return pixels
    rows, columns = pixels.shape[0] // step, pixels.shape[1] // step
    blocks = pixels[: rows * step, : columns * step].reshape(rows, step, columns, step, 3)
    return np.asarray(blocks.mean((1, 3)).round(), np.uint8)


@cache
def _engine() -> Any:
    try:
        from rapidocr import RapidOCR  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ModuleNotFoundError:
        raise ConfigurationError(
            "reading text on pictures needs the extra `deid` (rapidocr, onnxruntime)", field="ocr"
        ) from None
    threads = int(os.environ.get("MEDMAX_THREADS") or -1)
    engine = "EngineConfig.onnxruntime"
    return RapidOCR(
        params={
            "Global.log_level": "critical",  # its log lines quote what it reads
            "Global.text_score": 0.0,
            "Global.use_cls": False,
            "Det.limit_side_len": MIN_SIDE,
            f"{engine}.intra_op_num_threads": threads,
            f"{engine}.inter_op_num_threads": 1 if threads > 0 else -1,
        }
    )
