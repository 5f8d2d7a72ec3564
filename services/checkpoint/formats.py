"""Where the tensors of safetensors files and of files of `torch.save` lie."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from services.checkpoint.stored import StoredTensor, contiguous
from services.errors import CheckpointError

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
