"""Requests that are wrong in every way are refused with the tensor's name and the limit, and nothing else."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import InvalidInput, ModelNotFound, UnsupportedField
from services.inference.messages import read_inputs
from services.inference.specs import FILE, PIXELS, ModelSpec
from services.inference.tensors import Datatype, from_contents, from_raw, to_raw
from services.pb.inference import grpc_service_pb2 as pb
from tests.support.pictures import encode, noise
from tests.support.tiny import tiny_vq_config
from tests.unit.inference.conftest import Front

TOKENIZER = ModelSpec.tokenizer(tiny_vq_config(), 4)
PICTURE = encode(noise())
SECRET = "Doe^Jane"


def framed(*entries: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)


def asking(**changes: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(
        model_name="tokenizer",
        inputs=[{"name": "FILE", "datatype": "BYTES", "shape": [1, 1]}],
        raw_input_contents=[framed(PICTURE)],
    )
    for name, value in changes.items():
        request.ClearField(name)
        if isinstance(value, list):
            getattr(request, name).extend(value)
        elif isinstance(value, dict):
            for key, parameter in value.items():
                request.parameters[key].CopyFrom(parameter)
        else:
            setattr(request, name, value)
    return request


def tensor(**changes: Any) -> pb.ModelInferRequest.InferInputTensor:
    parameters = changes.pop("parameters", {})
    made = pb.ModelInferRequest.InferInputTensor(
        **{"name": "FILE", "datatype": "BYTES", "shape": [1, 1], **changes}
    )
    for key, value in parameters.items():
        made.parameters[key].string_param = value
    return made


NUMBER = pb.InferParameter(int64_param=5)
CASES: list[tuple[dict[str, Any], type[Exception], str, str]] = [
    ({"model_name": SECRET}, ModelNotFound, "model_name", "tokenizer or decoder"),
    ({"model_version": "7"}, ModelNotFound, "model_version", "1"),
    ({"id": "x" * 257}, InvalidInput, "id", "256"),
    ({"parameters": {"sequence_id": NUMBER}}, UnsupportedField, "parameters", "timeout"),
    (
        {"parameters": {"timeout": pb.InferParameter(string_param="1")}},
        InvalidInput,
        "parameters[timeout]",
        "1",
    ),
    (
        {"parameters": {"timeout": pb.InferParameter(int64_param=-1)}},
        InvalidInput,
        "parameters[timeout]",
        "1",
    ),
    ({"inputs": [], "raw_input_contents": []}, InvalidInput, "inputs", "FILE or PIXELS"),
    ({"inputs": [tensor(name=SECRET)]}, InvalidInput, "inputs[0].name", "FILE, PIXELS"),
    ({"inputs": [tensor(datatype="FP32")]}, InvalidInput, "inputs[FILE].datatype", "BYTES"),
    ({"inputs": [tensor(shape=[1])]}, InvalidInput, "inputs[FILE].shape", "[-1, 1]"),
    ({"inputs": [tensor(shape=[0, 1])]}, InvalidInput, "inputs[FILE].shape[0]", "from 1 to 4"),
    ({"inputs": [tensor(shape=[5, 1])]}, InvalidInput, "inputs[FILE].shape[0]", "from 1 to 4"),
    ({"inputs": [tensor(shape=[2**62, 1])]}, InvalidInput, "inputs[FILE].shape[0]", "from 1 to 4"),
    ({"inputs": [tensor(shape=[1, 2])]}, InvalidInput, "inputs[FILE].shape[1]", "must be 1"),
    (
        {"inputs": [tensor(parameters={"shared_memory_region": SECRET})]},
        UnsupportedField,
        "inputs[FILE].parameters",
        "1",
    ),
    (
        {"inputs": [tensor(), tensor()], "raw_input_contents": [framed(PICTURE)] * 2},
        InvalidInput,
        "inputs[1].name",
        "twice",
    ),
    ({"raw_input_contents": [PICTURE, PICTURE]}, InvalidInput, "raw_input_contents", "2 of them for 1"),
    ({"raw_input_contents": []}, InvalidInput, "inputs[FILE].contents.bytes_contents", "0 elements"),
    ({"raw_input_contents": [b"\0\0"]}, InvalidInput, "inputs[FILE].raw", "length"),
    ({"raw_input_contents": [b"\xff" * 8]}, InvalidInput, "inputs[FILE].raw", "longer"),
    ({"raw_input_contents": [framed(b"a", b"b")]}, InvalidInput, "inputs[FILE].raw", "more than the 1"),
    ({"raw_input_contents": [framed(b"")]}, InvalidInput, "inputs[FILE][0]", "empty"),
    ({"raw_input_contents": [framed(SECRET.encode())]}, InvalidInput, "inputs[FILE][0]", ""),
    (
        {"outputs": [pb.ModelInferRequest.InferRequestedOutputTensor(name=SECRET)]},
        InvalidInput,
        "outputs[0].name",
        "CODES",
    ),
    (
        {"inputs": [tensor(contents={"bytes_contents": [PICTURE]})]},
        InvalidInput,
        "inputs[FILE].contents",
        "raw_input_contents",
    ),
    (
        {"inputs": [tensor(contents={"int_contents": [1]})], "raw_input_contents": []},
        InvalidInput,
        "inputs[FILE].contents.int_contents",
        "bytes_contents",
    ),
    (
        {
            "inputs": [tensor(name="PIXELS", datatype="UINT8", shape=[1, 2**40, 2**40, 3])],
            "raw_input_contents": [b"1"],
        },
        InvalidInput,
        "inputs[PIXELS].raw",
        "1 bytes",
    ),
    (
        {
            "inputs": [
                tensor(
                    name="PIXELS",
                    datatype="UINT8",
                    shape=[1, 1, 1, 3],
                    contents={"uint_contents": [1, 2, 256]},
                )
            ],
            "raw_input_contents": [],
        },
        InvalidInput,
        "inputs[PIXELS].contents.uint_contents",
        "0 to 255",
    ),
    (
        {
            "inputs": [tensor(name="PIXELS", datatype="UINT8", shape=[1, 4, 4, 3])],
            "raw_input_contents": [bytes(48)],
        },
        InvalidInput,
        "inputs[PIXELS][0]",
        "8 px",
    ),
    (
        {
            "inputs": [tensor(), tensor(name="PIXELS", datatype="UINT8", shape=[1, 8, 8, 3])],
            "raw_input_contents": [framed(PICTURE), bytes(192)],
        },
        InvalidInput,
        "inputs",
        "one of the two",
    ),
]


async def test_every_fault_is_named(front: Front) -> None:
    for changes, kind, field, hint in CASES:
        with pytest.raises(kind) as caught:
            await front.servicer.ModelInfer(asking(**changes))
        assert str(caught.value.field).startswith(field), changes
        assert hint in caught.value.message, changes
        assert SECRET not in str(caught.value)
        assert len(str(caught.value)) < 300
    assert (await front.servicer.ModelInfer(asking())).outputs[0].shape == [1, 16]


ENTRIES = st.lists(st.binary(max_size=40), min_size=1, max_size=4)


@given(ENTRIES)
def test_bytes_survive_both_ways(entries: list[bytes]) -> None:
    shape = [len(entries), 1]
    typed = from_contents(pb.InferTensorContents(bytes_contents=entries), Datatype.BYTES, shape, "x")
    raw = from_raw(to_raw(typed, Datatype.BYTES), Datatype.BYTES, shape, "x")
    assert raw.ravel().tolist() == typed.ravel().tolist() == entries


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=30))
def test_numbers_survive_both_ways(values: list[int]) -> None:
    typed = from_contents(pb.InferTensorContents(int_contents=values), Datatype.INT32, [len(values)], "x")
    raw = from_raw(to_raw(typed, Datatype.INT32), Datatype.INT32, [len(values)], "x")
    assert np.array_equal(raw, typed)
    assert typed.tolist() == values


SHAPES = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 5), max_size=5)
TENSORS = st.builds(
    lambda name, datatype, shape, contents: {
        "name": name,
        "datatype": datatype,
        "shape": shape,
        "contents": {contents[0]: contents[1]} if contents else None,
    },
    st.sampled_from(["FILE", "PIXELS", ""]) | st.text(max_size=5),
    st.sampled_from(["BYTES", "UINT8", "INT32"]) | st.text(max_size=5),
    st.just([1, 1]) | st.just([1, 2, 2, 3]) | SHAPES,
    st.none()
    | st.tuples(st.just("bytes_contents"), st.lists(st.binary(max_size=5), max_size=3))
    | st.tuples(st.just("uint_contents"), st.lists(st.integers(0, 300), max_size=14)),
)


@settings(max_examples=300)
@given(st.lists(TENSORS, max_size=3), st.lists(st.binary(max_size=20), max_size=3))
def test_whatever_comes_is_read_or_refused(tensors: list[dict[str, Any]], raw: list[bytes]) -> None:
    request = pb.ModelInferRequest(inputs=tensors, raw_input_contents=raw)
    refused = None
    arrays: dict[str, Any] = {}
    try:
        arrays = read_inputs(request, TOKENIZER.inputs, TOKENIZER.max_batch)
    except InvalidInput as refusal:
        refused = str(refusal.field)
    assert refused is None or refused.startswith(("inputs", "raw_input_contents"))
    for spec in (FILE, PIXELS):
        if spec.name in arrays:
            assert arrays[spec.name].dtype == spec.datatype.dtype
            assert 1 <= len(arrays[spec.name]) <= 4
