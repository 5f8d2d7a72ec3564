"""Directories and safetensors files that are written whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.checkpoint.formats import NAMES
from services.checkpoint.stored import as_bytes
from services.checkpoint.tensors import Weights

Advance = Callable[[int], None]
"""Called with the number of bytes just written."""


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path`, gone at the end; rename it to keep it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        staging.chmod(0o755)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def nbytes(weights: Weights, name: str) -> int:
    """Size of a tensor without reading it."""
    count = weights.dtype(name).itemsize
    for length in weights.shape(name):
        count *= length
    return count


def stream_safetensors(path: Path, tensors: Mapping[str, tuple[Weights, str]], advance: Advance) -> None:
    """Write a safetensors file, holding one tensor at a time.

    Args:
        tensors: name in the file → where it comes from, and its name there.
    """
    # Wide dtypes first, so that every tensor is aligned.
    order = sorted(tensors, key=lambda name: -tensors[name][0].dtype(tensors[name][1]).itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in order:
        weights, source = tensors[name]
        end = offset + nbytes(weights, source)
        header[name] = {
            "dtype": NAMES[weights.dtype(source)],
            "shape": list(weights.shape(source)),
            "data_offsets": [offset, end],
        }
        offset = end
    encoded = json.dumps(header, ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in order:
            weights, source = tensors[name]
            content = as_bytes(weights[source])
            stream.write(content)
            advance(len(content))


def stream_shards(
    folder: Path, tensors: Mapping[str, tuple[Weights, str]], limit: int, advance: Advance
) -> dict[str, str]:
    """Write `model*.safetensors` of at most `limit` bytes each (or one tensor), and return the file of each tensor."""
    groups: list[dict[str, tuple[Weights, str]]] = [{}]
    size = 0
    for name, (weights, source) in tensors.items():
        count = nbytes(weights, source)
        if groups[-1] and size + count > limit:
            groups.append({})
            size = 0
        groups[-1][name] = (weights, source)
        size += count
    files: dict[str, str] = {}
    for index, group in enumerate(groups, 1):
        file = (
            "model.safetensors" if len(groups) == 1 else f"model-{index:05d}-of-{len(groups):05d}.safetensors"
        )
        stream_safetensors(folder / file, group, advance)
        files |= dict.fromkeys(group, file)
    return files
