"""What every plain gRPC server does around a method: deadline in, errors out, counted, traced and logged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from services import logs, metrics, tracing
from services.rpc.names import SHORT_NAMES
from services.rpc.status import abort, known

Metadata = Iterable[tuple[str, str | bytes]]
Context = grpc.aio.ServicerContext[Any, Any]
OPEN_SERVICES = ("/grpc.health.v1.", "/grpc.reflection.")


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Turns `MedMaxError`s into statuses, everything unforeseen into a logged `internal_error`.

    A generator method is closed when its caller goes away, so that its work is freed at once. The caller's gRPC
    deadline becomes `request.context.timeout_ms` where that is longer or unset.

    Args:
        authenticate: raises `Unauthenticated` for metadata without a right key; None where keys are off.
            Health and reflection stay open.
    """

    def __init__(self, authenticate: Callable[[Metadata], object] | None = None) -> None:
        self._authenticate = authenticate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        name = handler_call_details.method
        if handler.response_streaming:
            return handler._replace(unary_stream=self._stream(handler.unary_stream, name))
        return handler._replace(unary_unary=self._unary(handler.unary_unary, name))

    def _enter(self, request: Any, context: Context, name: str) -> None:
        if self._authenticate is not None and not name.startswith(OPEN_SERVICES):
            self._authenticate(context.invocation_metadata() or ())
        take_deadline(request, context.time_remaining())

    def _unary(
        self, method: Callable[[Any, Context], Awaitable[Any]], name: str
    ) -> Callable[[Any, Context], Awaitable[Any]]:
        service, short = _names(name)

        async def call(request: Any, context: Context) -> Any:
            try:
                if not service:
                    self._enter(request, context, name)
                    return await method(request, context)
                logs.enter(_request_id(request))
                with metrics.track(service, short, tracing.parent_of(context.invocation_metadata())):
                    self._enter(request, context, name)
                    return await method(request, context)
            except Exception as error:
                if isinstance(error, grpc.aio.AbortError):
                    raise
                await abort(context, known(error))

        return call

    def _stream(
        self, method: Callable[[Any, Context], AsyncIterator[Any]], name: str
    ) -> Callable[[Any, Context], Awaitable[None]]:
        service, short = _names(name)

        async def entered(request: Any, context: Context) -> AsyncIterator[Any]:
            self._enter(request, context, name)
            async with aclosing(method(request, context)) as events:  # type: ignore[type-var]
                async for event in events:
                    yield event

        # A coroutine that writes, not a generator that yields: grpc.aio does not close an abandoned generator.
        async def call(request: Any, context: Context) -> None:
            stream = entered(request, context)
            if service:
                logs.enter(_request_id(request))
                parent = tracing.parent_of(context.invocation_metadata())
                stream = metrics.track_stream(service, short, stream, parent)
            try:
                async with aclosing(stream) as events:  # type: ignore[type-var]
                    async for event in events:
                        await context.write(event)
            except Exception as error:
                if isinstance(error, grpc.aio.AbortError):
                    raise
                await abort(context, known(error))

        return call


def _request_id(request: Any) -> str:
    """Ours, or the Open Inference Protocol's; empty where a request has none. `logs.enter` refuses what is no id."""
    fields = request.DESCRIPTOR.fields_by_name
    if "context" in fields:
        return str(request.context.request_id)
    return str(request.id) if "id" in fields else ""


def _names(method: str) -> tuple[str, str]:
    """Service and method of `/medmax.v1.Assistant/Generate`, for metrics; an empty service for one of others."""
    service, _, name = method.strip("/").partition("/")
    return SHORT_NAMES.get(service, ""), name


def take_deadline(request: Any, remaining_s: float | None) -> None:
    """Lowers `request.context.timeout_ms` to the transport's `remaining_s`, where the request has that field."""
    if remaining_s is None or "context" not in request.DESCRIPTOR.fields_by_name:
        return
    remaining_ms = max(1, min(int(remaining_s * 1000), 2**31))
    asked = request.context.timeout_ms
    request.context.timeout_ms = min(asked, remaining_ms) if asked else remaining_ms
