"""Requests read against a model's inputs, answers written from its outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInput, UnsupportedField
from services.inference.tensors import TensorSpec, from_contents, from_raw, to_raw
from services.pb.inference import grpc_service_pb2 as pb

Arrays = dict[str, NDArray[Any]]
MAX_ID_CHARS = 256
OF_STREAMS = "triton_enable_empty_final_response"
"""perf_analyzer always sends it; it means something to streams alone."""


def read_inputs(request: pb.ModelInferRequest, specs: Sequence[TensorSpec], max_batch: int) -> Arrays:
    """The request's arrays by name.

    Raises:
        InvalidInput: names the tensor, by its name or its place, and the limit.
    """
    known = {spec.name: spec for spec in specs}
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(f"{len(raw)} of them for {len(request.inputs)} inputs", field="raw_input_contents")
    arrays: Arrays = {}
    for place, tensor in enumerate(request.inputs):
        spec = known.get(tensor.name)
        if spec is None:
            raise InvalidInput(f"must be one of {', '.join(known)}", field=f"inputs[{place}].name")
        if spec.name in arrays:
            raise InvalidInput(f"{spec.name} is given twice", field=f"inputs[{place}].name")
        field = f"inputs[{spec.name}]"
        _refuse(tensor.parameters, f"{field}.parameters")
        spec.check(tensor.datatype, tensor.shape, max_batch, field)
        if not raw:
            arrays[spec.name] = from_contents(
                tensor.contents, spec.datatype, tensor.shape, f"{field}.contents"
            )
        elif tensor.contents.ListFields():
            raise InvalidInput("not together with raw_input_contents", field=f"{field}.contents")
        else:
            arrays[spec.name] = from_raw(raw[place], spec.datatype, tensor.shape, f"{field}.raw")
    for spec in specs:
        if spec.name not in arrays and not spec.optional:
            raise InvalidInput("is missing", field=f"inputs[{spec.name}]")
    return arrays


def read_outputs(request: pb.ModelInferRequest, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The outputs that the request wants, in its order; all where it names none. Raises: InvalidInput."""
    known = {spec.name: spec for spec in specs}
    chosen: dict[str, TensorSpec] = {}
    for place, wanted in enumerate(request.outputs):
        if wanted.name not in known:
            raise InvalidInput(f"must be one of {', '.join(known)}", field=f"outputs[{place}].name")
        _refuse(wanted.parameters, f"outputs[{wanted.name}].parameters")
        chosen[wanted.name] = known[wanted.name]
    return list(chosen.values()) or list(specs)


def read_timeout_ms(request: pb.ModelInferRequest) -> int:
    """Milliseconds of the parameter `timeout` (given in microseconds); 0 where there is none.

    Raises:
        UnsupportedField: another parameter.
        InvalidInput: no number, or below 1.
    """
    _refuse(request.parameters, "parameters", {"timeout", OF_STREAMS})
    if "timeout" not in request.parameters:
        return 0
    value = request.parameters["timeout"]
    microseconds = max(value.int64_param, value.uint64_param)  # zero where the choice is another
    if microseconds < 1:
        raise InvalidInput("must be an integer of microseconds, at least 1", field="parameters[timeout]")
    return min(math.ceil(microseconds / 1000), 2**31 - 1)


def write_request(
    model: str, inputs: Mapping[TensorSpec, NDArray[Any]], outputs: Sequence[str]
) -> pb.ModelInferRequest:
    """A request with raw contents."""
    request = pb.ModelInferRequest(model_name=model)
    for spec, array in inputs.items():
        request.inputs.add(name=spec.name, datatype=spec.datatype.name, shape=array.shape)
        request.raw_input_contents.append(to_raw(array, spec.datatype))
    for name in outputs:
        request.outputs.add(name=name)
    return request


def write_outputs(
    response: pb.ModelInferResponse, arrays: Mapping[str, NDArray[Any]], specs: Sequence[TensorSpec]
) -> None:
    """Adds the outputs `specs` to `response`, with raw contents."""
    for spec in specs:
        array = arrays[spec.name]
        response.outputs.add(name=spec.name, datatype=spec.datatype.name, shape=array.shape)
        response.raw_output_contents.append(to_raw(array, spec.datatype))


def read_output(response: pb.ModelInferResponse, spec: TensorSpec) -> NDArray[Any]:
    """The output `spec` of a response for a batch of one, without the batch's dimension.

    Raises:
        InvalidInput: it is missing or not what `spec` says.
    """
    for place, tensor in enumerate(response.outputs):
        if tensor.name == spec.name:
            field = f"outputs[{spec.name}]"
            spec.check(tensor.datatype, tensor.shape, 1, field)
            if place < len(response.raw_output_contents):
                data = response.raw_output_contents[place]
                return np.asarray(from_raw(data, spec.datatype, tensor.shape, field)[0])
            return np.asarray(from_contents(tensor.contents, spec.datatype, tensor.shape, field)[0])
    raise InvalidInput("is missing", field=f"outputs[{spec.name}]")


def check_id(request: pb.ModelInferRequest) -> None:
    """Raises: InvalidInput for an id that is too long."""
    if len(request.id) > MAX_ID_CHARS:
        raise InvalidInput(f"{len(request.id)} characters; the limit is {MAX_ID_CHARS}", field="id")


def _refuse(parameters: Mapping[str, Any], field: str, known: set[str] | None = None) -> None:
    """Raises: UnsupportedField for a parameter that is not known, such as those of shared memory."""
    if unknown := len(parameters.keys() - (known or set())):
        only = f"; those that are: {', '.join(sorted(known))}" if known else ""
        raise UnsupportedField(f"{unknown} of them are not supported{only}", field=field)
