"""A model at a server of the Open Inference Protocol, such as Triton: one array in, one array out."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from services.config import Settings
from services.deadline import Deadline
from services.errors import ConfigurationError, DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from services.inference.messages import read_output, write_request
from services.inference.specs import DIGEST
from services.inference.tensors import TensorSpec
from services.pb.inference import grpc_service_pb2 as pb
from services.pb.inference import grpc_service_pb2_grpc as stubs
from services.rpc.client import Remote
from services.rpc.status import error_of

log = logging.getLogger(__name__)

HEALTH_TIMEOUT_S = 3.0
FIRST_PAUSE_S = 0.1
MAX_DETAILS_CHARS = 300
WRONG_KEY = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
WRONG_MODEL = {
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
}


@dataclass(frozen=True)
class Place:
    """Where a service's work is done instead of here.

    Attributes:
        service: `tokenizer` or `decoder`; names the settings in messages.
        address: `host:port`.
        model: its name there.
        digest: SHA-256 of the weights that the model must have been made from.
        max_pending: calls at once; below 0 = no limit.
    """

    service: str
    address: str
    model: str
    digest: str
    max_pending: int

    @property
    def setting(self) -> str:
        return f"MEDMAX_{self.service.upper()}_TRITON_MODEL"


class RemoteModel(Remote):
    """One model at one server. The server batches; each call brings one picture.

    A call that finds the server unavailable is tried again `triton_retries` times, with growing pauses, within its
    deadline: a model's answer has no side effects.

    Args:
        input, output: the tensors that go there and come back.
        settings: `triton_timeout_s` of one attempt, `triton_retries`, message limits, `service_key`.
    """

    def __init__(self, place: Place, input: TensorSpec, output: TensorSpec, settings: Settings) -> None:
        super().__init__(place.address, settings)
        self._place = place
        self._input, self._output = input, output
        self._pending = 0
        self._checked = self._closed = False

    async def infer(self, array: NDArray[Any], deadline: Deadline) -> NDArray[Any]:
        """The output for the input `array`, both without the batch's dimension.

        Raises:
            Overloaded: too many calls at once, here or there.
            DeadlineExceeded: `deadline` passed.
            Unavailable: closed, out of reach after the last attempt, or no answer in time.
            ConfigurationError: no such model there, not one made from this checkpoint, or a key is wrong.
            InternalError: the server failed; the log has what it said.
        """
        limit = self._place.max_pending
        if self._closed:
            raise Unavailable(f"the {self._place.service} is shutting down", retry_after_s=1)
        if 0 <= limit <= self._pending:
            raise Overloaded(f"{self._pending} pictures at once; the limit is {limit}", retry_after_s=1)
        request = write_request(
            self._place.model, {self._input: np.asarray(array)[None]}, [self._output.name]
        )
        self._pending += 1
        try:
            response = await self._call(request, deadline)
        finally:
            self._pending -= 1
        if DIGEST in response.parameters:
            self._check_digest(response.parameters[DIGEST].string_param)
        try:
            return read_output(response, self._output)
        except InvalidInput as error:
            self._mismatch(str(error))

    async def check_health(self) -> None:
        """Raises: Unavailable when closed, when the server is out of reach or its model not ready."""
        if self._closed:
            raise Unavailable(f"the {self._place.service} is shutting down", retry_after_s=1)
        request = pb.ModelReadyRequest(name=self._place.model)
        try:
            answer = await self._stub.ModelReady(request, timeout=HEALTH_TIMEOUT_S, metadata=self._metadata())
        except grpc.aio.AioRpcError as failure:
            log.warning("%s's Triton server: %s", self._place.service, failure.code())
            raise self._out_of_reach() from None
        if not answer.ready:
            raise Unavailable(f"the {self._place.service}'s model is not ready at its Triton server")

    async def close(self) -> None:
        """Closes the channel; calls under way end."""
        self._closed = True
        await super().close()

    @property
    def _stub(self) -> stubs.GRPCInferenceServiceAsyncStub:
        return stubs.GRPCInferenceServiceStub(self.channel)

    async def _call(self, request: pb.ModelInferRequest, deadline: Deadline) -> pb.ModelInferResponse:
        pause_s, left = FIRST_PAUSE_S, self._settings.triton_retries
        while True:
            deadline.check()
            try:
                await self._check_model(deadline)
                return await self._stub.ModelInfer(
                    request, timeout=self._attempt_s(deadline), metadata=self._metadata()
                )
            except grpc.aio.AioRpcError as failure:
                unavailable = failure.code() is grpc.StatusCode.UNAVAILABLE
                if not unavailable or not left or pause_s >= deadline.remaining_s:
                    self._fail(failure, deadline)
            self._checked = False  # what comes back may be another model
            left -= 1
            await asyncio.sleep(pause_s)
            pause_s *= 2

    def _attempt_s(self, deadline: Deadline) -> float:
        return max(0.001, min(deadline.remaining_s, self._settings.triton_timeout_s))

    async def _check_model(self, deadline: Deadline) -> None:
        """Whether the model was made from this checkpoint, where it says so."""
        if self._checked:
            return
        request = pb.ModelConfigRequest(name=self._place.model)
        try:
            answer = await self._stub.ModelConfig(
                request, timeout=self._attempt_s(deadline), metadata=self._metadata()
            )
        except grpc.aio.AioRpcError as failure:
            if failure.code() is not grpc.StatusCode.UNIMPLEMENTED:  # an extension of Triton's
                raise
        else:
            if DIGEST in answer.config.parameters:
                self._check_digest(answer.config.parameters[DIGEST].string_value)
        self._checked = True

    def _check_digest(self, digest: str) -> None:
        if digest != self._place.digest:
            self._mismatch("it has the weights of another checkpoint")

    def _mismatch(self, reason: str) -> NoReturn:
        raise ConfigurationError(
            f"the model at the Triton server is not this one: {reason}", field=self._place.setting
        )

    def _out_of_reach(self) -> Unavailable:
        return Unavailable(
            f"the {self._place.service}'s Triton server is out of reach; try again", retry_after_s=1
        )

    def _fail(self, failure: grpc.aio.AioRpcError, deadline: Deadline) -> NoReturn:
        """Raises what `failure` means to the caller, who knows nothing of tensors."""
        status, details = failure.code(), (failure.details() or "")[:MAX_DETAILS_CHARS]
        if status is grpc.StatusCode.DEADLINE_EXCEEDED:
            if deadline.remaining_s < 0.001:
                raise DeadlineExceeded("the request's time ran out", field="context.timeout_ms") from None
            raise Unavailable(
                f"the {self._place.service}'s Triton server did not answer within "
                f"{self._settings.triton_timeout_s:g} s (MEDMAX_TRITON_TIMEOUT_S)",
                retry_after_s=1,
            ) from None
        if status is grpc.StatusCode.UNAVAILABLE:
            log.warning("%s's Triton server: %s", self._place.service, details)
            raise self._out_of_reach() from None
        if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise Overloaded(f"the {self._place.service}'s Triton server is full", retry_after_s=1) from None
        if status is grpc.StatusCode.CANCELLED:
            raise Unavailable(
                f"the {self._place.service}'s Triton server gave up; try again", retry_after_s=1
            ) from None
        if status in WRONG_KEY:
            raise ConfigurationError(
                f"the {self._place.service}'s Triton server does not take this key",
                field="MEDMAX_SERVICE_KEY",
            ) from None
        if status in WRONG_MODEL:
            self._mismatch(details)
        raise error_of(failure, f"the {self._place.service}'s Triton server") from None
