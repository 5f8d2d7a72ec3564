"""Serve handles with the servicers' own methods: what the gateway uses for deployments of its application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from ray.serve.handle import DeploymentHandle

from services import metrics, tracing
from services.config import Settings
from services.deadline import Deadline
from services.deployments.faults import error_from
from services.errors import DeadlineExceeded, Unavailable
from services.pb.medmax.v1 import decoder_pb2, llm_pb2, tokenizer_pb2

HEALTH_TIMEOUT_S = 3.0


class _Handle:
    """One deployment.

    Args:
        handle: of the deployment.
        settings: time limit of requests that bring none.
    """

    name = ""

    def __init__(self, handle: DeploymentHandle[Any], settings: Settings) -> None:
        self._handle: Any = handle.options(request_serialization="pickle", response_serialization="pickle")
        self._settings = settings

    async def _unary(self, method: str, request: Any) -> Any:
        deadline = Deadline.after(request.context.timeout_ms, self._settings.request_timeout_s)
        with metrics.CALLS.labels(self.name).track_inprogress():
            response = getattr(self._handle, method).remote(request, tracing.traceparent())
            return await self._call(response, deadline.remaining_s)

    async def _call(self, response: Any, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await response
        except BaseException as failure:
            response.cancel()
            if _is_ours(failure):
                raise
            raise error_from(failure, self.name) from None

    async def check_health(self) -> None:
        """Raises: Unavailable when no replica answers in time."""
        try:
            await self._call(self._handle.check_health.remote(), HEALTH_TIMEOUT_S)
        except DeadlineExceeded:
            raise Unavailable(f"the {self.name} service does not answer", retry_after_s=1) from None

    async def close(self) -> None:
        """Nothing to release: the application owns its deployments."""


class HandleTokenizer(_Handle):
    """The image tokenizer of this application."""

    name = "tokenizer"

    async def Tokenize(self, request: tokenizer_pb2.TokenizeRequest) -> tokenizer_pb2.TokenizeResponse:
        response: tokenizer_pb2.TokenizeResponse = await self._unary("Tokenize", request)
        return response


class HandleDecoder(_Handle):
    """The image decoder of this application."""

    name = "decoder"

    async def Decode(self, request: decoder_pb2.DecodeRequest) -> decoder_pb2.DecodeResponse:
        response: decoder_pb2.DecodeResponse = await self._unary("Decode", request)
        return response


class HandleLanguageModel(_Handle):
    """The language model of this application."""

    name = "llm"

    def __init__(self, handle: DeploymentHandle[Any], settings: Settings) -> None:
        super().__init__(handle, settings)
        self._streams: Any = self._handle.options(stream=True)

    async def Generate(
        self, request: llm_pb2.LanguageModelGenerateRequest
    ) -> AsyncIterator[llm_pb2.LanguageModelEvent]:
        """Events as they come; closing the generator cancels the replica's work."""
        deadline = Deadline.after(request.context.timeout_ms, self._settings.request_timeout_s)
        response = self._streams.Generate.remote(request, tracing.traceparent())
        with metrics.CALLS.labels(self.name).track_inprogress():
            try:
                while True:
                    try:
                        async with asyncio.timeout(deadline.remaining_s):
                            event = await anext(response)
                    except StopAsyncIteration:
                        return
                    except BaseException as failure:
                        if _is_ours(failure):
                            raise
                        raise error_from(failure, self.name) from None
                    yield event
            finally:
                response.cancel()


def _is_ours(failure: BaseException) -> bool:
    """Whether this task itself is being cancelled (or the interpreter ends), rather than the replica's."""
    if isinstance(failure, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return not isinstance(failure, Exception)
