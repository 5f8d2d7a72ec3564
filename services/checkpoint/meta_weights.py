"""Weights in Meta's layout, one file or several model-parallel shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from services.checkpoint.config import ModelConfig
from services.checkpoint.names import from_pairs, is_head_norm, is_rotated, meta_name
from services.checkpoint.stored import StoredTensor, require_finite
from services.checkpoint.tensors import Weights
from services.errors import CheckpointError

Shard = Mapping[str, StoredTensor]


class MetaWeights(Weights):
    """Model-parallel shards, joined and in Hugging Face's order while they are read."""

    def __init__(self, shards: Sequence[Shard], config: ModelConfig) -> None:
        """
        Raises:
            CheckpointError: a shard lacks a tensor that another has.
        """
        self._shards, self._config, self._shapes = shards, config, config.shapes()
        for name in self._shapes:
            have = [meta_name(name) in shard for shard in shards]
            if any(have) and not all(have):
                file = next(iter(shards[have.index(False)].values())).file.name
                raise CheckpointError(f"lacks tensor {meta_name(name)}; copy it again", field=file)

    def _pieces(self, name: str) -> list[StoredTensor]:
        if name not in self._shapes:
            raise KeyError(name)
        return [shard[meta_name(name)] for shard in self._shards]

    def shape(self, name: str) -> tuple[int, ...]:
        pieces, wanted = self._pieces(name), self._shapes[name]
        if is_head_norm(name):
            # One row stands for all of a shard's heads.
            return (wanted[0], *pieces[0].shape) if len(pieces[0].shape) == 1 else pieces[0].shape
        axis = _joined_axis(pieces, wanted)
        return tuple(
            sum(p.shape[d] for p in pieces) if d == axis else n for d, n in enumerate(pieces[0].shape)
        )

    def dtype(self, name: str) -> torch.dtype:
        return self._pieces(name)[0].dtype

    def part(self, name: str, axis: int, start: int, stop: int) -> Tensor:
        pieces, head_dim = self._pieces(name), self._config.head_dim
        if is_head_norm(name):
            heads = self._shapes[name][0] // len(pieces)
            rows = torch.cat([from_pairs(p.read(), head_dim).expand(heads, -1) for p in pieces])
            tensor = rows.narrow(axis, start, stop - start).contiguous()
        else:
            tensor = _join(pieces, _joined_axis(pieces, self._shapes[name]), axis, start, stop)
            if is_rotated(name) and tensor.shape[0] % head_dim == 0 and start % head_dim == 0:
                tensor = from_pairs(tensor, head_dim)
            elif is_rotated(name):
                raise ValueError(f"{name} is read by whole heads only")
        return require_finite(tensor, name, pieces[0].file.name)

    def __contains__(self, name: object) -> bool:
        return name in self._shapes and meta_name(str(name)) in self._shards[0]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._shapes if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _joined_axis(pieces: Sequence[StoredTensor], whole: tuple[int, ...]) -> int | None:
    """The axis along which shards divide a tensor; None where each holds all of it."""
    shape = pieces[0].shape
    if len(pieces) == 1 or shape == whole or len(shape) != len(whole):
        return None
    return next((d for d, n in enumerate(shape) if n * len(pieces) == whole[d]), 0)


def _join(pieces: Sequence[StoredTensor], joined: int | None, axis: int, start: int, stop: int) -> Tensor:
    if joined is None:
        return pieces[0].read(axis, start, stop)
    if joined != axis:
        return torch.cat([piece.read(axis, start, stop) for piece in pieces], joined)
    parts, first = [], 0
    for piece in pieces:
        length = piece.shape[axis]
        low, high = max(start - first, 0), min(stop - first, length)
        if low < high:
            parts.append(piece.read(axis, low, high))
        first += length
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)
