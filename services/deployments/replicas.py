"""Tokenizer, language model and decoder as deployments: their servicers, watched and measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from services import logs, metrics, tracing
from services.config import Settings
from services.deployments.loopback import bind_to
from services.pb.medmax.v1 import decoder_pb2, llm_pb2, tokenizer_pb2
from services.rpc import freeze
from services.rpc.status import known


@contextmanager
def _known() -> Iterator[None]:
    """Only errors of the tree leave a replica: Serve would log any other with its message, which may quote a prompt."""
    try:
        yield
    except Exception as failure:
        raise known(failure) from None


class _Replica:
    """A servicer in a replica. Loading the checkpoint is the replica's start."""

    name = ""

    def __init__(self, settings: Settings) -> None:
        bind_to(settings)
        logs.configure(self.name)
        tracing.configure(self.name)
        self._servicer = self._load(settings)
        metrics.publish_replica(self.name, self._servicer.model.id, self._servicer.model.digest)
        freeze()

    def _load(self, settings: Settings) -> Any:
        raise NotImplementedError

    async def check_health(self) -> None:
        await self._servicer.check_health()

    async def __del__(self) -> None:
        if servicer := self.__dict__.pop("_servicer", None):
            await servicer.close()
            await asyncio.to_thread(tracing.close)


class TokenizerReplica(_Replica):
    """Service 1."""

    name = "tokenizer"

    def _load(self, settings: Settings) -> Any:
        from services.tokenizer.servicer import ImageTokenizerServicer

        return ImageTokenizerServicer.from_settings(settings)

    async def Tokenize(
        self, request: tokenizer_pb2.TokenizeRequest, traceparent: str = ""
    ) -> tokenizer_pb2.TokenizeResponse:
        logs.enter(request.context.request_id)
        with _known(), metrics.track(self.name, "Tokenize", traceparent):
            response: tokenizer_pb2.TokenizeResponse = await self._servicer.Tokenize(request)
            return response


class LanguageModelReplica(_Replica):
    """Service 2."""

    name = "llm"

    def _load(self, settings: Settings) -> Any:
        from services.llm.servicer import LanguageModelServicer

        return LanguageModelServicer.from_settings(settings)

    async def Generate(
        self, request: llm_pb2.LanguageModelGenerateRequest, traceparent: str = ""
    ) -> AsyncIterator[llm_pb2.LanguageModelEvent]:
        logs.enter(request.context.request_id)
        stream = metrics.track_stream(self.name, "Generate", self._servicer.Generate(request), traceparent)
        with _known():
            async with aclosing(stream) as events:  # type: ignore[type-var]
                async for event in events:
                    yield event


class DecoderReplica(_Replica):
    """Service 3."""

    name = "decoder"

    def _load(self, settings: Settings) -> Any:
        from services.decoder.servicer import ImageDecoderServicer

        return ImageDecoderServicer.from_settings(settings)

    async def Decode(
        self, request: decoder_pb2.DecodeRequest, traceparent: str = ""
    ) -> decoder_pb2.DecodeResponse:
        logs.enter(request.context.request_id)
        with _known(), metrics.track(self.name, "Decode", traceparent):
            response: decoder_pb2.DecodeResponse = await self._servicer.Decode(request)
            return response
