"""Weights on disk as a mapping from name to tensor, read one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from services.errors import CheckpointError


class SafetensorsWeights(Mapping[str, Tensor]):
    """Tensors of one or more safetensors files; nothing is read before it is asked for."""

    def __init__(self, files: list[Path]) -> None:
        """
        Raises:
            CheckpointError: a file is missing or damaged, or two hold the same tensor.
        """
        self._file_of: dict[str, Any] = {}
        for file in files:
            try:
                handle: Any = safe_open(file, framework="pt")
                names: list[str] = list(handle.keys())
            except (OSError, SafetensorError) as error:
                raise CheckpointError(
                    f"{file.name} cannot be read: {error}; copy the checkpoint again", field=file.name
                ) from error
            for name in names:
                if name in self._file_of:
                    raise CheckpointError(f"{file.name}: tensor {name} is in two files", field=name)
                self._file_of[name] = handle

    def __getitem__(self, name: str) -> Tensor:
        """Raises: CheckpointError where the tensor holds NaN or infinite values; KeyError where it is missing."""
        tensor: Tensor = self._file_of[name].get_tensor(name)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"tensor {name} holds NaN or infinite values", field=name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._file_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file_of[name].get_slice(name).get_shape())
