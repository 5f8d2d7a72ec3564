"""The services by address: the same methods as the servicers, over gRPC.

Errors arrive as `MedMaxError`s. The deadline is the request's own `context.timeout_ms`, else the settings' limit.
Channels are opened on first use, since gRPC binds them to the running event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services import tracing
from services.config import Settings
from services.errors import Unavailable
from services.pb.medmax.v1 import (
    decoder_pb2,
    decoder_pb2_grpc,
    llm_pb2,
    llm_pb2_grpc,
    tokenizer_pb2,
    tokenizer_pb2_grpc,
)
from services.rpc.names import FULL_NAMES
from services.rpc.server import message_options
from services.rpc.status import error_of

KEEPALIVE = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
]
HEALTH_TIMEOUT_S = 5.0


class Remote:
    """One service at one address.

    Args:
        address: `host:port`.
        settings: message limits, time limit, and the key to present (`service_key`).
    """

    name = ""

    def __init__(self, address: str, settings: Settings) -> None:
        self.address = address
        self._settings = settings
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def channel(self) -> grpc.aio.Channel:
        """Opened for the running event loop."""
        loop = asyncio.get_running_loop()
        if self._channel is None or self._loop is not loop:
            options = [*message_options(self._settings), *KEEPALIVE]
            self._channel, self._loop = grpc.aio.insecure_channel(self.address, options), loop
        return self._channel

    def _timeout_s(self, request: Any) -> float:
        asked = request.context.timeout_ms / 1000
        limit = self._settings.request_timeout_s
        return min(asked, limit) if asked else limit

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        key, trace = self._settings.service_key, tracing.traceparent()
        return (
            *((("authorization", f"Bearer {key.get_secret_value()}"),) if key else ()),
            *(((tracing.TRACEPARENT, trace),) if trace else ()),
        )

    async def _unary(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=self._timeout_s(request), metadata=self._metadata())
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure, self.name) from None

    async def check_health(self) -> None:
        """Raises: Unavailable when the service is out of reach or not serving."""
        stub = health_pb2_grpc.HealthStub(self.channel)
        request = health_pb2.HealthCheckRequest(service=FULL_NAMES[self.name])
        try:
            response = await stub.Check(request, timeout=HEALTH_TIMEOUT_S)
        except grpc.aio.AioRpcError as failure:
            raise Unavailable(f"the {self.name} service is out of reach", retry_after_s=1) from failure
        if response.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable(f"the {self.name} service is not ready", retry_after_s=1)

    async def close(self) -> None:
        """Closes the channel; a later call opens a new one."""
        if self._channel is not None and self._loop is asyncio.get_running_loop():
            await self._channel.close(None)
        self._channel = None


class RemoteTokenizer(Remote):
    """An image tokenizer by address."""

    name = "tokenizer"

    async def Tokenize(self, request: tokenizer_pb2.TokenizeRequest) -> tokenizer_pb2.TokenizeResponse:
        stub = tokenizer_pb2_grpc.ImageTokenizerStub(self.channel)
        response: tokenizer_pb2.TokenizeResponse = await self._unary(stub.Tokenize, request)
        return response


class RemoteDecoder(Remote):
    """An image decoder by address."""

    name = "decoder"

    async def Decode(self, request: decoder_pb2.DecodeRequest) -> decoder_pb2.DecodeResponse:
        stub = decoder_pb2_grpc.ImageDecoderStub(self.channel)
        response: decoder_pb2.DecodeResponse = await self._unary(stub.Decode, request)
        return response


class RemoteLanguageModel(Remote):
    """A language model by address."""

    name = "llm"

    async def Generate(
        self, request: llm_pb2.LanguageModelGenerateRequest
    ) -> AsyncIterator[llm_pb2.LanguageModelEvent]:
        """Events as they come; closing the generator cancels the call."""
        stub = llm_pb2_grpc.LanguageModelStub(self.channel)
        call = stub.Generate(request, timeout=self._timeout_s(request), metadata=self._metadata())
        try:
            async for event in call:
                yield event
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure, self.name) from None
        finally:
            call.cancel()
