"""Where a tensor lies in a file, and reading it or a part of it without mapping the rest into memory."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from services.errors import CheckpointError

BLOCK_BYTES = 1 << 26
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in _DTYPES.items()}
"""What safetensors calls a dtype."""


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


def read_safetensors(file: Path) -> dict[str, StoredTensor]:
    """Every tensor of a safetensors file, by name.

    Raises:
        CheckpointError: missing, truncated or no safetensors file.
    """
    try:
        with safe_open(file, framework="pt"):  # checks the header against the file
            pass
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(size))
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{file.name} cannot be read: {error}; copy the checkpoint again", field=file.name
        ) from None
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise CheckpointError(
                f"tensor {name} has dtype {entry['dtype']}; save it as F32, F16 or BF16", field=file.name
            )
        shape = tuple(entry["shape"])
        found[name] = StoredTensor(file, 8 + size + entry["data_offsets"][0], dtype, shape, contiguous(shape))
    return found


def read_torch(file: Path) -> dict[str, StoredTensor]:
    """Every tensor at the top (or below `state_dict`) of a file of `torch.save`, by name; no code in it is run.

    Raises:
        CheckpointError: missing, truncated, no file of torch, or one that holds more than tensors.
    """
    try:
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        offsets = _data_offsets(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file.name} is missing; copy it again", field=file.name) from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            "holds Python objects or code beside tensors and was not opened; get a file of plain tensors",
            field=file.name,
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise CheckpointError(
            f"truncated, damaged or no file of torch ({reason}); copy it again", field=file.name
        ) from None
    base = min((t.untyped_storage().data_ptr() for t in _tensors(content)), default=0) - min(
        offsets, default=0
    )
    if any(t.untyped_storage().data_ptr() - base not in offsets for t in _tensors(content)):
        raise CheckpointError("has an unknown inner order; save it again with torch", field=file.name)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise CheckpointError("must hold one mapping from name to tensor", field=file.name)
    return {
        str(name): StoredTensor(
            file, tensor.data_ptr() - base, tensor.dtype, tuple(tensor.shape), tuple(tensor.stride())
        )
        for name, tensor in content.items()
        if isinstance(tensor, Tensor)
    }


def _data_offsets(file: Path) -> set[int]:
    """Where the storages of a file of `torch.save` begin."""
    reader: Any = torch._C.PyTorchFileReader(str(file))
    records = (name for name in reader.get_all_records() if name.startswith("data/"))
    return {reader.get_record_offset(name) for name in records}


def _tensors(content: Any) -> Iterator[Tensor]:
    """Every tensor that has elements, however deep in containers."""
    if isinstance(content, Tensor):
        if content.untyped_storage().nbytes():
            yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from _tensors(value)
    elif isinstance(content, list | tuple | set):
        for value in content:
            yield from _tensors(value)
