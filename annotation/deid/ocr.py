"""Text on pictures: where it is and what it says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.errors import ConfigurationError

TILE, OVERLAP = 1280, 160
"""Pixels: pictures larger than a tile are read in tiles, and once more as a whole, smaller."""
_ONE = Lock()
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

    What the detector finds counts, whether or not it can be read.

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
            for top in range(0, height, TILE - OVERLAP):
                for left in range(0, width, TILE - OVERLAP):
                    lines += self._lines(pixels[top : top + TILE, left : left + TILE], left, top, 1)
        return lines

    def _lines(self, pixels: NDArray[np.uint8], left: int, top: int, scale: int) -> list[Line]:
        if min(pixels.shape[:2]) < 8:
            return []
        with _ONE:  # the engine is shared, and keeps what it is told to do
            return self._found(np.ascontiguousarray(pixels[..., ::-1]), left, top, scale)

    def _found(self, image: NDArray[np.uint8], left: int, top: int, scale: int) -> list[Line]:
        boxes = self._engine(image, use_det=True, use_cls=False, use_rec=False).boxes
        lines = []
        for box in () if boxes is None else boxes:
            low = np.maximum(np.floor(box.min(0)), 0).astype(int)
            high = np.ceil(box.max(0) + 1).astype(int)
            text, confidence = self._read(image[low[1] : high[1], low[0] : high[0]])
            corners = (left, top) + np.array([low, high]) * scale
            lines.append(Line(*(int(value) for value in corners.ravel()), text, confidence))
        return lines

    def _read(self, image: NDArray[np.uint8]) -> tuple[str, float]:
        if min(image.shape[:2]) < 2:
            return "", 0.0
        read = self._engine(image, use_det=False, use_cls=False, use_rec=True)
        return (str(read.txts[0]).strip(), float(read.scores[0])) if read.txts else ("", 0.0)


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
