"""Weights on disk as a mapping from Hugging Face's name to tensor, read one tensor, or a part of one, at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from services.checkpoint.formats import read_safetensors
from services.checkpoint.stored import StoredTensor, require_finite
from services.errors import CheckpointError


class Weights(Mapping[str, Tensor]):
    """Nothing is read before it is asked for, and nothing of it is kept."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Raises: KeyError where there is no such tensor; so do the others."""

    @abstractmethod
    def dtype(self, name: str) -> torch.dtype: ...

    @abstractmethod
    def part(self, name: str, axis: int, start: int, stop: int) -> Tensor:
        """Elements `start` to `stop` along `axis`, reading little more than that from disk.

        Raises:
            CheckpointError: the file is damaged, or the values are not finite.
        """

    def __getitem__(self, name: str) -> Tensor:
        """Raises: CheckpointError where the tensor holds NaN or infinite values; KeyError where it is missing."""
        shape = self.shape(name)
        return self.part(name, 0, 0, shape[0] if shape else 0)


class StoredWeights(Weights):
    """Tensors that lie in files as they are wanted."""

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        self._stored = dict(stored)

    @classmethod
    def of_files(cls, files: Iterable[Path]) -> StoredWeights:
        """All tensors of some safetensors files.

        Raises:
            CheckpointError: a file is missing or damaged, or two hold the same tensor.
        """
        return cls(read_files(files))

    def shape(self, name: str) -> tuple[int, ...]:
        return self._stored[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self._stored[name].dtype

    def part(self, name: str, axis: int, start: int, stop: int) -> Tensor:
        stored = self._stored[name]
        return require_finite(stored.read(axis, start, stop), name, stored.file.name)

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def read_files(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """See `StoredWeights.of_files`."""
    stored: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in read_safetensors(file).items():
            if name in stored:
                raise CheckpointError(f"{file.name}: tensor {name} is in two files", field=name)
            stored[name] = tensor
    return stored
