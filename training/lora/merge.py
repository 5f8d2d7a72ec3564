"""An adapter added to its base's weights, whole or in part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from services.checkpoint import Checkpoint, open_checkpoint
from services.checkpoint.adapter import WEIGHTS, Adapter, open_adapter
from services.checkpoint.convert import convert
from services.checkpoint.staging import Advance
from services.checkpoint.stored import require_finite
from services.checkpoint.tensors import Weights


class MergedWeights(Weights):
    """base + weight · adapter, computed in float32 and kept in the base's dtype, one tensor at a time.

    Weight 0 is the base, 1 the base with its adapter on; between them lies the interpolation of the two, which forgets
    less of what the base knew (Wortsman et al. 2022, WiSE-FT).
    """

    def __init__(self, base: Weights, adapter: Adapter, weight: float) -> None:
        self._base, self._adapter, self._weight = base, adapter, weight

    def shape(self, name: str) -> tuple[int, ...]:
        return self._base.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return self._base.dtype(name)

    def part(self, name: str, axis: int, start: int, stop: int) -> Tensor:
        if name not in self._adapter.pairs:
            return self._base.part(name, axis, start, stop)
        whole = self._base[name]
        merged = (whole.float() + self._weight * self._adapter.delta(name)).to(whole.dtype)
        return require_finite(merged, name, WEIGHTS).narrow(axis, start, stop - start).contiguous()

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def merge(
    base: Path,
    folder: Path,
    out: Path,
    weight: float = 1.0,
    vqgan: Path | None = None,
    advance: Advance = lambda count: None,
) -> Checkpoint:
    """Write the checkpoint `out` in our own layout, complete or not at all.

    Raises:
        CheckpointError: `out` exists, or the adapter is damaged or another checkpoint's.
    """
    source = open_checkpoint(base, vqgan)
    adapter = open_adapter(folder, source)
    merged = replace(source, weights=MergedWeights(source.weights, adapter, weight))
    provenance = {"command": "medmax train merge", "weight": weight, "adapter": dict(adapter.provenance)}
    return convert(merged, out, advance=advance, provenance=provenance)
