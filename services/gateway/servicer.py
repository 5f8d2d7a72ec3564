"""`medmax.v1.Assistant` over gRPC: who calls, until when, and the assistant's own methods."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, cast

from services import logs
from services.errors import PayloadTooLarge
from services.gateway.assistant import Assistant
from services.gateway.auth import Gate, authorization_of
from services.pb.medmax.v1 import assistant_pb2


class AssistantServicer:
    """The proto's methods. Errors are raised as `MedMaxError`s.

    Args:
        gate: shared with the REST front, so that a key's rate counts both.
    """

    def __init__(self, assistant: Assistant, gate: Gate | None = None) -> None:
        self.assistant = assistant
        self._gate = gate or Gate(assistant.settings)

    async def Generate(
        self, request: assistant_pb2.GenerateRequest, context: Any = None
    ) -> AsyncIterator[assistant_pb2.GenerateEvent]:
        """Closing the generator cancels the work."""
        caller = self._enter(request, context)
        async with aclosing(cast(Any, self.assistant.generate(request, caller))) as events:
            async for event in events:
                yield event

    async def SubmitFeedback(
        self, request: assistant_pb2.SubmitFeedbackRequest, context: Any = None
    ) -> assistant_pb2.SubmitFeedbackResponse:
        return await self.assistant.submit_feedback(request, self._enter(request, context))

    async def GetInteraction(
        self, request: assistant_pb2.GetInteractionRequest, context: Any = None
    ) -> assistant_pb2.Interaction:
        return await self.assistant.get_interaction(request, self._enter(request, context))

    async def check_health(self) -> None:
        """Raises: Unavailable when a service or the store cannot answer."""
        await self.assistant.check_health()

    async def close(self) -> None:
        await self.assistant.close()

    def _enter(self, request: Any, context: Any) -> str:
        caller = self._gate.admit(authorization_of(_metadata(context)))
        limit = self.assistant.settings.max_request_bytes
        if request.ByteSize() > limit:
            raise PayloadTooLarge(f"at most {limit:,} bytes (MEDMAX_MAX_REQUEST_BYTES)", field="request")
        request.context.request_id = request.context.request_id or uuid.uuid4().hex
        logs.enter(request.context.request_id)
        remaining_s = _remaining_s(context)
        if remaining_s is not None:
            remaining_ms = max(1, min(int(remaining_s * 1000), 2**31))
            request.context.timeout_ms = min(request.context.timeout_ms or remaining_ms, remaining_ms)
        return caller


def _metadata(context: Any) -> Iterable[tuple[str, Any]]:
    """Of a `grpc.aio` context, Ray Serve's copy of one, or none (a call in process)."""
    return () if context is None else context.invocation_metadata() or ()


def _remaining_s(context: Any) -> float | None:
    """Seconds until the caller's gRPC deadline; Ray Serve's context does not know it."""
    time_remaining = getattr(context, "time_remaining", None)
    return None if time_remaining is None else time_remaining()
