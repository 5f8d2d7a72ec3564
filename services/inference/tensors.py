"""Tensors of the Open Inference Protocol ↔ numpy arrays.

A request brings its elements raw (`raw_input_contents`) or typed (`contents`); both are read, raw is written.
BYTES is an object array of `bytes`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInput
from services.pb.inference import grpc_service_pb2 as pb

ANY = -1
"""A dimension of any size."""
LENGTH = struct.Struct("<I")


class Datatype(Enum):
    """Element types in use: numpy's type, the field of `InferTensorContents`, the type's number in `ModelConfig`."""

    BYTES = (np.dtype(object), "bytes_contents", pb.TYPE_STRING)
    UINT8 = (np.dtype("u1"), "uint_contents", pb.TYPE_UINT8)
    INT32 = (np.dtype("<i4"), "int_contents", pb.TYPE_INT32)

    def __init__(self, dtype: np.dtype[Any], field: str, number: pb.DataType.ValueType) -> None:
        self.dtype, self.field, self.number = dtype, field, number


@dataclass(frozen=True)
class TensorSpec:
    """What a model says of one of its tensors.

    Attributes:
        dims: sizes behind the batch's dimension, which is first; ANY where free.
        optional: an input that may be left out.
    """

    name: str
    datatype: Datatype
    dims: tuple[int, ...]
    optional: bool = False

    def check(self, datatype: str, shape: Sequence[int], max_batch: int, field: str) -> None:
        """Raises: InvalidInput where `datatype` or `shape` is not this tensor's; the message names the limit."""
        if datatype != self.datatype.name:
            raise InvalidInput(f"must be {self.datatype.name}", field=f"{field}.datatype")
        if len(shape) != len(self.dims) + 1:
            raise InvalidInput(f"{len(shape)} dimensions; must be {self.described}", field=f"{field}.shape")
        if not 1 <= shape[0] <= max_batch:
            raise InvalidInput(
                f"a batch of {shape[0]}; must be from 1 to {max_batch}", field=f"{field}.shape[0]"
            )
        for place, (given, wanted) in enumerate(zip(shape[1:], self.dims, strict=True), 1):
            if given < 1 or wanted not in (ANY, given):
                limit = "at least 1" if wanted == ANY else str(wanted)
                raise InvalidInput(f"{given}; must be {limit}", field=f"{field}.shape[{place}]")

    @property
    def described(self) -> str:
        """The shape, for messages."""
        return f"[{', '.join(str(size) for size in (ANY, *self.dims))}]"


def from_raw(data: bytes, datatype: Datatype, shape: Sequence[int], field: str) -> NDArray[Any]:
    """The array of `shape` whose raw elements are `data`; it may not be written to.

    Raises:
        InvalidInput: more or fewer bytes than the shape takes.
    """
    if datatype is Datatype.BYTES:
        return _objects(_split(data, math.prod(shape), field), shape)
    expected = math.prod(shape) * datatype.dtype.itemsize
    if len(data) != expected:
        raise InvalidInput(f"{len(data)} bytes; the shape takes {expected}", field=field)
    return np.frombuffer(data, datatype.dtype).reshape(shape)


def from_contents(
    contents: pb.InferTensorContents, datatype: Datatype, shape: Sequence[int], field: str
) -> NDArray[Any]:
    """The array of `shape` whose typed elements are in `contents`.

    Raises:
        InvalidInput: elements of another type, too many or too few, or one out of the type's range.
    """
    for descriptor, _ in contents.ListFields():
        if descriptor.name != datatype.field:
            raise InvalidInput(
                f"{datatype.name} elements belong into {datatype.field}", field=f"{field}.{descriptor.name}"
            )
    values = getattr(contents, datatype.field)
    field = f"{field}.{datatype.field}"
    if len(values) != math.prod(shape):
        raise InvalidInput(f"{len(values)} elements; the shape takes {math.prod(shape)}", field=field)
    if datatype is Datatype.BYTES:
        return _objects(values, shape)
    array = np.fromiter(values, np.int64, len(values))
    limits = np.iinfo(datatype.dtype)
    if array.min() < limits.min or array.max() > limits.max:
        raise InvalidInput(f"an element is outside {limits.min} to {limits.max}", field=field)
    return array.astype(datatype.dtype).reshape(shape)


def to_raw(array: NDArray[Any], datatype: Datatype) -> bytes:
    """What `from_raw` reads."""
    if datatype is Datatype.BYTES:
        return b"".join(LENGTH.pack(len(entry)) + entry for entry in array.ravel())
    return np.ascontiguousarray(array, datatype.dtype).tobytes()


def _split(data: bytes, count: int, field: str) -> Iterable[bytes]:
    view, at = memoryview(data), 0
    entries: list[bytes] = []
    while at < len(view):
        if len(entries) == count:
            raise InvalidInput(f"more than the {count} elements of the shape", field=field)
        if len(view) - at < LENGTH.size:
            raise InvalidInput("ends within the length of an element", field=field)
        (length,) = LENGTH.unpack_from(view, at)
        at += LENGTH.size
        if length > len(view) - at:
            raise InvalidInput(f"element {len(entries)} is longer than what follows its length", field=field)
        entries.append(bytes(view[at : at + length]))
        at += length
    if len(entries) != count:
        raise InvalidInput(f"{len(entries)} elements; the shape takes {count}", field=field)
    return entries


def _objects(entries: Iterable[bytes], shape: Sequence[int]) -> NDArray[Any]:
    array = np.empty(math.prod(shape), object)
    for place, entry in enumerate(entries):
        array[place] = entry
    return array.reshape(shape)
