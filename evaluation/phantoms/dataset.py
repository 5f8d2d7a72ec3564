"""Phantoms written to disk as a MedMax data set: `rows.jsonl` and one PNG per phantom."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.phantoms.catalogue import draw
from evaluation.phantoms.rows import IMAGE, rows


def write_dataset(folder: Path, seeds: Iterable[int]) -> int:
    """Write the rows of these phantoms and their pictures under `folder`; returns the number of rows.

    Pictures go to `images/<seed>.png`. `image_path` is relative to `folder`, and None in rows without a picture.
    An existing `rows.jsonl` is replaced, and only once all rows are written.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    count = 0
    unfinished = folder / "rows.jsonl.part"
    with unfinished.open("w", encoding="utf-8") as file:
        for seed in seeds:
            phantom = draw(seed)
            path = images / f"{seed}.png"
            Image.fromarray(phantom.picture).save(path)
            for row in rows(phantom, np.random.default_rng([seed, 4])):
                if IMAGE in row.text:
                    row = replace(row, image_path=path.relative_to(folder).as_posix())
                file.write(json.dumps(row.record()) + "\n")
                count += 1
    unfinished.replace(folder / "rows.jsonl")
    return count
