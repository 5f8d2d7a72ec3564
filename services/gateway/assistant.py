"""The assistant: a conversation in, a stream of text and pictures out, every answer stored before its last event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, cast

from services import tracing
from services.checkpoint import Checkpoint
from services.config import Settings
from services.deadline import Deadline
from services.errors import NotFound, Unavailable
from services.gateway.access import Access
from services.gateway.answer import Answer, Backends
from services.gateway.backends import DecoderBackend, LanguageModelBackend, Store, TokenizerBackend
from services.gateway.model import ServedModel
from services.gateway.validate import check_context, check_generate
from services.pb.medmax.v1 import assistant_pb2

HEALTH_TIMEOUT_S = 5.0


class Assistant:
    """Composes the services. One instance serves any number of requests at a time on one event loop.

    Args:
        model: vocabulary, grid, context and defaults of the checkpoint that the backends serve.
        store: where interactions are kept; None = nowhere.

    Raises:
        ConfigurationError: as `Access`.
    """

    def __init__(
        self,
        settings: Settings,
        model: ServedModel,
        tokenizer: TokenizerBackend,
        llm: LanguageModelBackend,
        decoder: DecoderBackend,
        store: Store | None,
    ) -> None:
        self.settings = settings
        self.model = model
        self.access = Access(settings)
        self.backends = Backends(tokenizer, llm, decoder, store)

    @classmethod
    def from_checkpoint(
        cls,
        settings: Settings,
        checkpoint: Checkpoint,
        tokenizer: TokenizerBackend,
        llm: LanguageModelBackend,
        decoder: DecoderBackend,
        store: Store | None,
    ) -> Assistant:
        """An assistant for backends that serve `checkpoint`."""
        return cls(settings, ServedModel.of(checkpoint), tokenizer, llm, decoder, store)

    async def generate(
        self, request: assistant_pb2.GenerateRequest, caller: str
    ) -> AsyncIterator[assistant_pb2.GenerateEvent]:
        """Any number of `text` and `image` events, then one `finish`, whose interaction is stored by then.

        Closing the generator cancels the work of every service.

        Args:
            caller: name of the key that asks.

        Raises:
            InvalidInput: names the field and the limit; nothing was done.
            ModelNotFound: another model than the served one, or an adapter that the caller may not use.
            Overloaded, DeadlineExceeded, Unavailable: possibly after part of the answer; nothing was stored.
        """
        check_generate(request, self.settings)
        self.access.check(request.adapter, caller)
        deadline = Deadline.after(request.context.timeout_ms, self.settings.request_timeout_s)
        span = tracing.begin("gateway/answer")
        answer = Answer(request, caller, self.settings, self.model, self.backends, deadline, span)
        with tracing.recorded(span):
            async with aclosing(cast(Any, tracing.within(span, answer.events()))) as events:
                async for event in events:
                    yield event

    async def submit_feedback(
        self, request: assistant_pb2.SubmitFeedbackRequest, caller: str
    ) -> assistant_pb2.SubmitFeedbackResponse:
        """Raises: InvalidInput; NotFound: no such interaction of this caller."""
        check_context(request.context)
        return assistant_pb2.SubmitFeedbackResponse(
            feedback_id=await self._store().add_feedback(request, caller)
        )

    async def get_interaction(
        self, request: assistant_pb2.GetInteractionRequest, caller: str
    ) -> assistant_pb2.Interaction:
        """Raises: InvalidInput; NotFound: no such interaction of this caller."""
        check_context(request.context)
        return await self._store().get(request.interaction_id, caller, request.include_images)

    async def check_health(self) -> None:
        """Raises: Unavailable when a service or the store cannot answer."""
        parts = [self.backends.tokenizer, self.backends.llm, self.backends.decoder, self.backends.store]
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                await asyncio.gather(*(part.check_health() for part in parts if part is not None))
        except TimeoutError:
            raise Unavailable("a service does not answer its health check", retry_after_s=1) from None

    async def close(self) -> None:
        """Lets go of the services and the store."""
        backends = self.backends
        try:
            await asyncio.gather(backends.tokenizer.close(), backends.llm.close(), backends.decoder.close())
        finally:
            if backends.store is not None:
                await asyncio.to_thread(backends.store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _store(self) -> Store:
        if self.backends.store is None:
            raise NotFound("this installation stores no interactions", field="interaction_id")
        return self.backends.store
