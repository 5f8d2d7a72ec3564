"""What Triton's Python backend runs: the tokenizer or the decoder itself, as in a service of ours.

Triton's process must be able to import this project: it is installed in that Python, or PYTHONPATH names it and its
packages. Settings come from `config.pbtxt`, the others from `MEDMAX_*`.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

from services import config, logs
from services.config import Device
from services.deadline import Deadline
from services.decoder.servicer import ImageDecoderServicer
from services.errors import DeadlineExceeded, InvalidInput, MedMaxError, Overloaded, Unavailable
from services.gateway.tasks import all_or_none
from services.inference.local import local_model
from services.inference.messages import Arrays
from services.pb.medmax.v1 import common_pb2
from services.rpc.status import known
from services.tokenizer.servicer import ImageTokenizerServicer

SERVICERS: dict[str, type[ImageTokenizerServicer | ImageDecoderServicer]] = {
    "tokenizer": ImageTokenizerServicer,
    "decoder": ImageDecoderServicer,
}


class TritonPythonModel:
    """One instance of one model. Requests that come together are worked on together."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the checkpoint. Raises: ConfigurationError, CheckpointError; Triton then reports the model as failed."""
        import triton_python_backend_utils  # what the backend adds to the path of its processes

        self._triton: Any = triton_python_backend_utils
        parameters = {
            name: value["string_value"]
            for name, value in json.loads(args["model_config"])["parameters"].items()
        }
        on_gpu = args["model_instance_kind"] == "GPU"
        if on_gpu:
            import torch

            torch.cuda.set_device(int(args["model_instance_device_id"]))
        chosen = {
            name: parameters[name] for name in ("checkpoint", "vqgan", "model_id") if name in parameters
        }
        service = parameters["service"]
        self._settings = config.load(
            **chosen,
            batch_size=parameters["batch_size"],
            device=Device.CUDA if on_gpu else Device.CPU,
            **{f"{service}_backend": "torch"},
        )
        logs.configure(f"triton-{service}")
        # Its futures belong to one event loop, so all calls run in this one.
        self._runner = asyncio.Runner()
        self._servicer = SERVICERS[service].from_settings(self._settings)
        self._model = local_model(self._servicer, self._settings)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request, in their order; a failed one holds its error alone."""
        return self._runner.run(all_or_none(self._answer(request) for request in requests))

    def finalize(self) -> None:
        """Releases the threads."""
        self._runner.run(self._servicer.close())
        self._runner.close()

    async def _answer(self, request: Any) -> Any:
        triton = self._triton
        try:
            arrays = self._inputs(request)
            wanted = set(request.requested_output_names())
            outcome = await self._model.infer(arrays, wanted, self._context(request))
        except Exception as failure:
            return triton.InferenceResponse(error=self._error(known(failure)))
        outputs = [triton.Tensor(name, array) for name, array in outcome.arrays.items()]
        return triton.InferenceResponse(output_tensors=outputs)

    def _inputs(self, request: Any) -> Arrays:
        arrays: Arrays = {}
        spec = self._model.spec
        for tensor in spec.inputs:
            given = self._triton.get_input_tensor_by_name(request, tensor.name)
            if given is not None:
                array = given.as_numpy()
                # Triton has compared the type and the fixed sizes with config.pbtxt.
                tensor.check(tensor.datatype.name, array.shape, spec.max_batch, f"inputs[{tensor.name}]")
                arrays[tensor.name] = array
        return arrays

    def _context(self, request: Any) -> common_pb2.RequestContext:
        asked_ms = math.ceil(request.timeout() / 1000)
        deadline = Deadline.after(asked_ms, self._settings.request_timeout_s)
        return common_pb2.RequestContext(timeout_ms=deadline.remaining_ms)

    def _error(self, error: MedMaxError) -> Any:
        triton = self._triton.TritonError
        codes = {
            InvalidInput: triton.INVALID_ARG,
            Overloaded: triton.UNAVAILABLE,
            Unavailable: triton.UNAVAILABLE,
            DeadlineExceeded: triton.CANCELLED,
        }
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), triton.INTERNAL)
        return triton(str(error), code)
