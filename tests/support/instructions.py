"""Instruction rows and pictures on disk, for tests of training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EOT = "<reserved08706>"


def picture(path: Path, seed: int, size: int = 16) -> Path:
    """A picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_lines(file: Path, rows: Iterable[Mapping[str, Any] | str | bytes]) -> Path:
    """Rows as JSON lines; strings and bytes are written as they are."""
    with file.open("wb") as stream:
        for row in rows:
            text = json.dumps(row) if isinstance(row, Mapping) else row
            stream.write((text.encode() if isinstance(text, str) else text) + b"\n")
    return file


def write_data(folder: Path, count: int = 12) -> Path:
    """`count` rows: questions about pictures, drawings, and dialogues with two pictures."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        first, second = (
            picture(folder / "images" / f"{number}{x}.png", number * 2 + i) for i, x in enumerate("ab")
        )
        names = [path.relative_to(folder).as_posix() for path in (first, second)]
        if number % 3 == 0:
            rows.append({"text": f"<image>Is it {number}?{EOT}yes, {number}", "image_path": names[0]})
        elif number % 3 == 1:
            rows.append({"text": f"Draw {number}.{EOT}<image>", "image_path": names[0]})
        else:
            text = f"<image>What?{EOT}This.{EOT}And now {number}?{EOT}That: <image>"
            rows.append({"text": text, "image_path": names})
    return write_lines(folder / "rows.jsonl", rows)
