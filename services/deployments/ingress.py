"""The gateway as the application's ingress: REST and every gRPC method behind the Serve proxies.

Serve's gRPC proxy hands a request to the ingress by the method's bare name. `Assistant.Generate` and
`LanguageModel.Generate` share theirs; the message's type tells them apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from services import logs, metrics, tracing
from services.checkpoint import open_checkpoint
from services.config import Settings, renewed
from services.deployments import draining
from services.deployments.faults import error_from
from services.deployments.handles import HandleDecoder, HandleLanguageModel, HandleTokenizer
from services.deployments.loopback import bind_to
from services.gateway.assistant import Assistant
from services.gateway.auth import Gate, authorization_of
from services.gateway.rest import create_app
from services.gateway.servicer import AssistantServicer
from services.inference.servicer import InferenceServicer
from services.interactions import InteractionStore
from services.pb.inference import grpc_service_pb2 as pb
from services.pb.medmax.v1 import assistant_pb2, decoder_pb2, llm_pb2, tokenizer_pb2
from services.rpc import RemoteDecoder, RemoteLanguageModel, RemoteTokenizer, status_of
from services.rpc.health import HealthServicer
from services.rpc.names import FULL_NAMES

NAME = "gateway"


class GatewayReplica:
    """REST and gRPC front of the application.

    Args:
        renew: settings to be taken from this process's environment, where it has them.
        handles: of the application's own `tokenizer`, `llm` and `decoder`; a service that the settings give an
            address is missing here and called at that address.
    """

    def __init__(self, settings: Settings, renew: tuple[str, ...] = (), **handles: Any) -> None:
        settings = renewed(settings, renew) if renew else settings
        bind_to(settings)
        logs.configure(NAME)
        tracing.configure(NAME)
        metrics.publish_replica(NAME, settings.model_id)
        for name in (*handles, NAME):
            metrics.publish_scale(name, getattr(settings, name))
        self._settings = settings
        self._gate = Gate(settings)

        def backend(name: str, handle: Callable[..., Any], remote: Callable[..., Any]) -> Any:
            return (
                handle(handles[name], settings)
                if name in handles
                else remote(address_of(settings, name), settings)
            )

        checkpoint = open_checkpoint(settings.checkpoint, settings.vqgan)
        self._assistant = Assistant.from_checkpoint(
            settings,
            checkpoint,
            backend("tokenizer", HandleTokenizer, RemoteTokenizer),
            backend("llm", HandleLanguageModel, RemoteLanguageModel),
            backend("decoder", HandleDecoder, RemoteDecoder),
            InteractionStore.open(settings) if settings.store else None,
        )
        backends = self._assistant.backends
        self._servicer = AssistantServicer(self._assistant, self._gate)
        self._inference = InferenceServicer.over(backends.tokenizer, backends.decoder, checkpoint, settings)
        self._health = HealthServicer(
            {
                FULL_NAMES["tokenizer"]: backends.tokenizer.check_health,
                FULL_NAMES["llm"]: backends.llm.check_health,
                FULL_NAMES["decoder"]: backends.decoder.check_health,
                FULL_NAMES["gateway"]: self._assistant.check_health,
                FULL_NAMES["inference"]: self._inference.check_health,
            }
        )

    def __serve_build_asgi_app__(self) -> Any:
        return create_app(self._assistant, self._settings, self._gate)

    async def check_health(self) -> None:
        """Answering is enough: a service or a database out of reach must not have this replica restarted as well.

        `/readyz` and `grpc.health.v1` tell of those.
        """

    async def __del__(self) -> None:
        if assistant := self.__dict__.pop("_assistant", None):
            await assistant.close()
            await asyncio.to_thread(tracing.close)

    # Assistant and LanguageModel

    async def Generate(
        self, request: assistant_pb2.GenerateRequest | llm_pb2.LanguageModelGenerateRequest, grpc_context: Any
    ) -> AsyncIterator[Any]:
        with _call(grpc_context, request) as parent:
            if isinstance(request, assistant_pb2.GenerateRequest):
                source, method = self._servicer.Generate(request, grpc_context), "Generate"
            else:
                source, method = self._generate_llm(request, grpc_context), "LanguageModel.Generate"
            stream: Any = metrics.track_stream(NAME, method, source, parent)
            async with aclosing(stream) as events:
                async for event in events:
                    yield event

    async def _generate_llm(
        self, request: llm_pb2.LanguageModelGenerateRequest, grpc_context: Any
    ) -> AsyncIterator[Any]:
        request.caller = self._enter(grpc_context)
        self._assistant.access.check(request.adapter, request.caller)
        async with aclosing(self._assistant.backends.llm.Generate(request)) as events:  # type: ignore[type-var]
            async for event in events:
                yield event

    async def SubmitFeedback(
        self, request: assistant_pb2.SubmitFeedbackRequest, grpc_context: Any
    ) -> assistant_pb2.SubmitFeedbackResponse:
        with _call(grpc_context, request) as parent, metrics.track(NAME, "SubmitFeedback", parent):
            return await self._servicer.SubmitFeedback(request, grpc_context)

    async def GetInteraction(
        self, request: assistant_pb2.GetInteractionRequest, grpc_context: Any
    ) -> assistant_pb2.Interaction:
        with _call(grpc_context, request) as parent, metrics.track(NAME, "GetInteraction", parent):
            return await self._servicer.GetInteraction(request, grpc_context)

    # ImageTokenizer and ImageDecoder

    async def Tokenize(
        self, request: tokenizer_pb2.TokenizeRequest, grpc_context: Any
    ) -> tokenizer_pb2.TokenizeResponse:
        with _call(grpc_context, request) as parent, metrics.track(NAME, "Tokenize", parent):
            self._enter(grpc_context)
            return await self._assistant.backends.tokenizer.Tokenize(request)

    async def Decode(
        self, request: decoder_pb2.DecodeRequest, grpc_context: Any
    ) -> decoder_pb2.DecodeResponse:
        with _call(grpc_context, request) as parent, metrics.track(NAME, "Decode", parent):
            self._enter(grpc_context)
            return await self._assistant.backends.decoder.Decode(request)

    # inference.GRPCInferenceService

    async def ModelInfer(self, request: pb.ModelInferRequest, grpc_context: Any) -> pb.ModelInferResponse:
        with _call(grpc_context) as parent, metrics.track(NAME, "ModelInfer", parent):
            self._enter(grpc_context)
            return await self._inference.ModelInfer(request, grpc_context)

    async def ServerLive(self, request: Any, grpc_context: Any) -> Any:
        return await self._ask(self._inference.ServerLive, request, grpc_context)

    async def ServerReady(self, request: Any, grpc_context: Any) -> Any:
        return await self._ask(self._inference.ServerReady, request, grpc_context)

    async def ModelReady(self, request: Any, grpc_context: Any) -> Any:
        return await self._ask(self._inference.ModelReady, request, grpc_context)

    async def ServerMetadata(self, request: Any, grpc_context: Any) -> Any:
        return await self._ask(self._inference.ServerMetadata, request, grpc_context)

    async def ModelMetadata(self, request: Any, grpc_context: Any) -> Any:
        return await self._ask(self._inference.ModelMetadata, request, grpc_context)

    async def ModelConfig(self, request: Any, grpc_context: Any) -> Any:
        return await self._ask(self._inference.ModelConfig, request, grpc_context)

    async def ModelStatistics(self, request: Any, grpc_context: Any) -> Any:
        return await self._ask(self._inference.ModelStatistics, request, grpc_context)

    async def _ask(self, method: Callable[..., Awaitable[Any]], request: Any, grpc_context: Any) -> Any:
        """A question about the models: it needs a key and counts against no rate."""
        with _call(grpc_context):
            self._gate.authenticate(authorization_of(grpc_context.invocation_metadata()))
            return await method(request, grpc_context)

    # grpc.health.v1.Health

    async def Check(self, request: Any, grpc_context: Any) -> Any:
        with _call(grpc_context):
            return await self._health.Check(request)

    async def List(self, request: Any, grpc_context: Any) -> Any:
        with _call(grpc_context):
            return await self._health.List(request)

    async def Watch(self, request: Any, grpc_context: Any) -> AsyncIterator[Any]:
        async with aclosing(self._health.Watch(request)) as statuses:  # type: ignore[type-var]
            async for status in statuses:
                yield status

    def _enter(self, grpc_context: Any) -> str:
        """The caller's name, once its key and rate are checked."""
        return self._gate.admit(authorization_of(grpc_context.invocation_metadata()))


def address_of(settings: Settings, name: str) -> str:
    """Where the settings say the service `name` is; empty = in this application."""
    return {
        "tokenizer": settings.tokenizer_address,
        "llm": settings.llm_address,
        "decoder": settings.decoder_address,
    }[name]


@contextmanager
def _call(grpc_context: Any, request: Any = None) -> Iterator[str]:
    """Around every gRPC method: a request id for the hops behind, and the status of the error that leaves.

    `services.deployments.proxy` adds the error's metadata.

    Yields:
        The caller's `traceparent`, empty where it sent none.
    """
    try:
        draining.check()
        if request is not None:
            # Serve's own id, which the caller gets back as the trailer `request_id`.
            request.context.request_id = request.context.request_id or _serve_id(grpc_context)
            logs.enter(request.context.request_id)
        yield tracing.parent_of(grpc_context.invocation_metadata())
    except Exception as failure:
        error = error_from(failure, NAME)
        status = status_of(error)
        grpc_context.set_code(status.code)
        grpc_context.set_details(status.details)
        raise error from None


def _serve_id(grpc_context: Any) -> str:
    return str(dict(grpc_context.trailing_metadata()).get("request_id", ""))[:64]
