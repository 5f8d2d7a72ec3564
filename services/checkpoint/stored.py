"""Where a tensor lies in a file, and reading it or a part of it without mapping the rest into memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.errors import CheckpointError

BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class StoredTensor:
    """Bytes of `file` from `offset` on; `stride` in elements, as torch has it."""

    file: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, axis: int = 0, start: int = 0, stop: int | None = None) -> Tensor:
        """Elements `start` to `stop` along `axis`, contiguous, in memory of their own.

        Raises:
            CheckpointError: the file is shorter than it was, or cannot be read.
        """
        stop = self.shape[axis] if stop is None and self.shape else stop
        if self.stride != contiguous(self.shape):
            extent = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
            flat = self._elements(0, extent) if math.prod(self.shape) else torch.empty(0, dtype=self.dtype)
            whole = flat.as_strided(self.shape, self.stride)
            return whole.narrow(axis, start, (stop or 0) - start).contiguous() if self.shape else whole
        if not self.shape:
            return self._elements(0, 1).view(())
        assert stop is not None
        row = math.prod(self.shape[1:])
        if axis == 0:
            return self._elements(start * row, stop * row).view(stop - start, *self.shape[1:])
        kept = list(self.shape)
        kept[axis] = stop - start
        part = torch.empty(kept, dtype=self.dtype)
        step = max(1, BLOCK_BYTES // max(1, row * self.dtype.itemsize))
        for first in range(0, self.shape[0], step):
            last = min(first + step, self.shape[0])
            block = self._elements(first * row, last * row).view(last - first, *self.shape[1:])
            part[first:last] = block.narrow(axis, start, stop - start)
        return part

    def _elements(self, start: int, stop: int) -> Tensor:
        elements = torch.empty(stop - start, dtype=self.dtype)
        if not elements.numel():
            return elements
        left = as_bytes(elements)
        try:
            with self.file.open("rb", buffering=0) as stream:
                stream.seek(self.offset + start * self.dtype.itemsize)
                while left:
                    count = stream.readinto(left)
                    if not count:
                        raise CheckpointError("the file ends too early; copy it again", field=self.file.name)
                    left = left[count:]
        except OSError as error:
            raise CheckpointError(f"cannot be read: {error.strerror}", field=self.file.name) from None
        return elements


def as_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    flat: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a tensor whose last dimension is densest."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= size
    return tuple(strides)


def require_finite(tensor: Tensor, name: str, file: str) -> Tensor:
    """Raises: CheckpointError where `tensor` holds NaN or infinite values."""
    if tensor.is_floating_point() and tensor.numel():
        # NaN passes through both ends; nothing as large as the tensor is allocated.
        low, high = torch.aminmax(tensor)
        if not (bool(torch.isfinite(low)) and bool(torch.isfinite(high))):
            raise CheckpointError(
                f"tensor {name} holds NaN or infinite values; {file} is damaged, copy it again", field=name
            )
    return tensor
