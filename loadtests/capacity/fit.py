"""From the samples of a calibration to the device that explains them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from loadtests.capacity.device import Device, Work
from loadtests.samples import Sample


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Base and slope of the best line, neither below 0; a single point is all slope."""
    x, y = np.array(points, dtype=float).T
    if len(set(x)) < 2:
        return 0.0, float(np.mean(y / np.maximum(x, 1e-9)))
    slope, base = np.polyfit(x, y, 1)
    if base < 0:
        return 0.0, float(x @ y / (x @ x))
    return (float(np.mean(y)), 0.0) if slope < 0 else (float(base), float(slope))


def fit(
    crowds: dict[int, list[Sample]], singles: list[Sample], picture_rows: int, known: dict[str, Any]
) -> Device:
    """The device that explains the samples.

    Args:
        crowds: drawings by how many were drawn at a time.
        singles: one request at a time.
        known: the fields that no sample tells.
    """
    steps = []
    for callers, samples in crowds.items():
        tokens = median(sample.image_tokens for sample in samples)
        # The median, since in the first and the last picture of a crowd others are missing.
        steps.append(
            (
                callers * picture_rows,
                median(sample.server_ms["generate_ms"] for sample in samples) / 1000 / tokens,
            )
        )
    base, row = line(steps)
    texts = [sample for sample in singles if not sample.pictures and sample.tokens]
    first = [
        (sample.prompt_tokens, (sample.server_ms["first_token_ms"] - sample.server_ms["tokenize_ms"]) / 1000)
        for sample in texts
    ]
    _, prefill = line(first)
    tokenized = [sample.server_ms["tokenize_ms"] / 1000 for sample in singles if sample.new_films]
    tokenize = median(tokenized) if tokenized else 0.0
    overheads = []
    for sample in texts:
        assert sample.first_s is not None
        begun = sample.new_films * tokenize + base + row + sample.prompt_tokens * prefill
        went_on = (sample.tokens - 1) * (base + row)
        overheads.append(
            (max(0.0, sample.first_s - begun), max(0.0, sample.total_s - sample.first_s - went_on))
        )
    decodes = [
        sample.server_ms["decode_ms"] / sample.pictures / 1000 for sample in singles if sample.pictures
    ]
    return Device(
        step_base_s=base,
        step_row_s=row,
        prefill_token_s=prefill,
        overheads=tuple(overheads),
        tokenize_s=tokenize,
        decode_s=median(decodes) if decodes else 0.0,
        picture_tokens=round(
            median(sample.image_tokens / sample.pictures for samples in crowds.values() for sample in samples)
        ),
        picture_rows=picture_rows,
        works=tuple(map(Work.of, singles)),
        **known,
    )
