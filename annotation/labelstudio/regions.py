"""Marked parts of pictures: Label Studio's percents and strokes, to `core.Region`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from annotation.core import Region
from annotation.labelstudio import rle
from services.errors import InvalidInput

_SLACK = 1e-6


def parse(results: Iterable[Mapping[str, Any]], pictures: Sequence[str]) -> list[Region]:
    """The regions of one annotation, in the order in which they were drawn.

    A region comes as several results with one id: its shape, and its labels. One without a label has label "". A
    stroke of which everything was erased again is none.

    Args:
        results: those of regions.
        pictures: digests, in the order of `item_index`.

    Raises:
        InvalidInput: a shape without size, outside the picture, of an unknown picture, or damaged.
    """
    shapes: dict[str, Mapping[str, Any]] = {}
    labels: dict[str, str] = {}
    for result in results:
        id, value = str(result.get("id", "")), result["value"]
        if result.get("type") in ("rectangle", "brush"):
            shapes[id] = result
        named = value.get("labels")
        if isinstance(named, list) and named and isinstance(named[0], str):
            labels[id] = named[0]
    found = (_region(shape, labels.get(id, ""), pictures) for id, shape in shapes.items())
    return [region for region in found if region is not None]


def _region(shape: Mapping[str, Any], label: str, pictures: Sequence[str]) -> Region | None:
    index = shape.get("item_index", shape["value"].get("item_index")) or 0
    if not isinstance(index, int) or not 0 <= index < len(pictures):
        raise InvalidInput("names a picture that the task does not have", field="item_index")
    width, height = shape.get("original_width"), shape.get("original_height")
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise InvalidInput("the picture's size is missing", field="original_width")
    value = shape["value"]
    if shape["type"] == "rectangle":
        return Region(str(pictures[index]), label, *_box(value, width, height))
    if value.get("format") != "rle" or not isinstance(value.get("rle"), list):
        raise InvalidInput("a stroke must be run-length coded", field="format")
    mask = rle.decode(value["rle"], width, height)
    box = rle.box(mask)
    return Region(str(pictures[index]), label, *box, mask=rle.to_png(mask)) if box else None


def _box(value: Mapping[str, Any], width: int, height: int) -> tuple[float, float, float, float]:
    """x, y, width, height as shares, of what a possibly turned rectangle covers; cut at the picture's edges."""
    numbers = [value.get(name, 0) for name in ("x", "y", "width", "height", "rotation")]
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise InvalidInput("coordinates must be finite numbers", field="value")
    x, y, w, h, rotation = numbers
    if w <= 0 or h <= 0:
        raise InvalidInput("a rectangle needs a size", field="value")
    if rotation % 360 == 0:
        left, top, right, bottom = x, y, x + w, y + h
    else:
        # Turned clockwise around its first corner, in pixels.
        angle = math.radians(rotation)
        sides = [(0, 0), (w * width, 0), (0, h * height), (w * width, h * height)]
        xs = [x + (a * math.cos(angle) - b * math.sin(angle)) / width for a, b in sides]
        ys = [y + (a * math.sin(angle) + b * math.cos(angle)) / height for a, b in sides]
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    left, top = max(0.0, left / 100), max(0.0, top / 100)
    right, bottom = min(1.0, right / 100), min(1.0, bottom / 100)
    if right - left < _SLACK or bottom - top < _SLACK:
        raise InvalidInput("lies outside the picture", field="value")
    return left, top, right - left, bottom - top
