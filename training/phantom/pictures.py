"""The training pictures: drawn once, kept in a file, read as one array."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.phantoms import SIZE, TRAIN_SEEDS, draw

_CHUNK = 250


@dataclass(frozen=True)
class Pictures:
    """`pictures` uint8 [N, SIZE, SIZE, 3] and `masks` bool [N, SIZE, SIZE] of the phantoms of `seeds`."""

    seeds: range
    pictures: NDArray[np.uint8]
    masks: NDArray[np.bool_]

    @property
    def digest(self) -> str:
        """SHA-256 of the pictures, hex."""
        return hashlib.sha256(np.ascontiguousarray(self.pictures).data).hexdigest()


def training_seeds(seed: int, count: int) -> range:
    """The phantoms that a run of this seed is trained on; different runs' do not overlap."""
    start = (seed % 1_000) * 1_000_000
    if not 0 < count <= 1_000_000 or start + count > TRAIN_SEEDS.stop:
        raise ValueError("a run takes 1 to 1,000,000 phantoms")
    return range(start, start + count)


def _draw(seeds: range) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    drawn = [draw(seed) for seed in seeds]
    return np.stack([phantom.picture for phantom in drawn]), np.stack([phantom.mask for phantom in drawn])


def load(folder: Path, seeds: range, workers: int, progress: Callable[[int, int], None]) -> Pictures:
    """The pictures of `seeds`, from `folder` where an earlier run left them; else drawn and left there."""
    path = folder / f"pictures-{SIZE}-{seeds.start}-{seeds.stop}.npz"
    if path.exists():
        with np.load(path) as stored:
            return Pictures(seeds, stored["pictures"], stored["masks"])
    parts = [seeds[index : index + _CHUNK] for index in range(0, len(seeds), _CHUNK)]
    pictures = np.empty((len(seeds), SIZE, SIZE, 3), np.uint8)
    masks = np.empty((len(seeds), SIZE, SIZE), np.bool_)
    # `spawn`: torch's threads do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for index, (picture, mask) in enumerate(pool.map(_draw, parts)):
            place = slice(index * _CHUNK, index * _CHUNK + len(picture))
            pictures[place], masks[place] = picture, mask
            progress(place.stop, len(seeds))
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, pictures=pictures, masks=masks)
    os.replace(partial, path)
    return Pictures(seeds, pictures, masks)
