"""A plain `grpc.aio` server around servicers: interceptor, reflection, health, clean stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Mapping
from typing import Any, cast

import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.config import Settings
from services.errors import ConfigurationError
from services.pb.inference import grpc_service_pb2, grpc_service_pb2_grpc
from services.pb.medmax.v1 import (
    assistant_pb2_grpc,
    decoder_pb2_grpc,
    llm_pb2_grpc,
    tokenizer_pb2_grpc,
)
from services.rpc.health import HealthServicer
from services.rpc.interceptor import ErrorInterceptor, Metadata
from services.rpc.names import FULL_NAMES

DRAIN_S = 5.0

REGISTER: dict[str, Callable[[Any, Any], None]] = {
    "tokenizer": tokenizer_pb2_grpc.add_ImageTokenizerServicer_to_server,
    "llm": llm_pb2_grpc.add_LanguageModelServicer_to_server,
    "decoder": decoder_pb2_grpc.add_ImageDecoderServicer_to_server,
    "gateway": assistant_pb2_grpc.add_AssistantServicer_to_server,
    "inference": grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server,
}
HEALTH_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


def message_options(settings: Settings) -> list[tuple[str, int]]:
    """gRPC channel options for the largest message; twice the request limit, so that a request over that limit
    still reaches the check that names it."""
    limit = min(2 * settings.max_request_bytes, 2**31 - 1)
    return [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", limit)]


class _Pools:
    """The process's descriptors and, after them, those of the inference stubs, which have a pool of their own."""

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def look_up(*key: Any) -> Any:
            try:
                return getattr(descriptor_pool.Default(), method)(*key)
            except KeyError:
                return getattr(grpc_service_pb2.DESCRIPTOR.pool, method)(*key)

        return look_up


class Server:
    """Servicers behind one port.

    Args:
        servicers: `tokenizer`, `llm`, `decoder`, `gateway` or `inference` → its servicer.
        port: 0 takes a free one; `address` tells which.
        authenticate: see `ErrorInterceptor`.
    """

    def __init__(
        self,
        servicers: Mapping[str, Any],
        host: str,
        port: int,
        settings: Settings,
        authenticate: Callable[[Metadata], object] | None = None,
    ) -> None:
        self._servicers = dict(servicers)
        self._host, self._asked_port = host, port
        self._server = grpc.aio.server(
            interceptors=[ErrorInterceptor(authenticate)],
            options=[
                *message_options(settings),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
        self.address = ""

    async def start(self) -> Server:
        """Binds and serves.

        Raises:
            ConfigurationError: the port is taken.
        """
        for name, servicer in self._servicers.items():
            REGISTER[name](servicer, self._server)
        checks = {FULL_NAMES[name]: servicer.check_health for name, servicer in self._servicers.items()}
        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(checks), self._server)
        names = [*checks, HEALTH_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server, cast(Any, _Pools()))
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            port = self._server.add_insecure_port(f"{host}:{self._asked_port}")
        except RuntimeError:
            raise ConfigurationError(
                f"cannot listen on {host}:{self._asked_port}; is it in use? Choose another with --port",
                field="port",
            ) from None
        self.address = f"{host}:{port}"
        await self._server.start()
        return self

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Takes no more calls, lets those at work end for `drain_s`, then releases the servicers."""
        await self._server.stop(drain_s)
        for servicer in self._servicers.values():
            await servicer.close()


def freeze() -> None:
    """For a process that only serves, once all is loaded: full collections, 0.1 s in mid-answer, leave what is there alone."""
    gc.collect()
    gc.freeze()


async def serve(
    servicers: Mapping[str, Any],
    host: str,
    port: int,
    settings: Settings,
    *,
    authenticate: Callable[[Metadata], object] | None = None,
    on_ready: Callable[[str], object] = print,
) -> None:
    """Serves until SIGINT or SIGTERM, then stops cleanly. `on_ready` gets the address."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    server = await Server(servicers, host, port, settings, authenticate).start()
    freeze()
    try:
        on_ready(server.address)
        await stopping.wait()
    finally:
        await server.stop()
