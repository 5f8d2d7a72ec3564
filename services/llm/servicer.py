"""`medmax.v1.LanguageModel` on an engine, free of any server framework."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from services import metrics, tracing
from services.checkpoint import open_checkpoint
from services.config import Settings
from services.deadline import Deadline
from services.errors import InvalidInput
from services.llm import events, trace
from services.llm.engine import Engine
from services.llm.request import GenerationRequest, OutputMode, Priority, SamplingRequest
from services.pb.medmax.v1 import common_pb2, llm_pb2

_MODES = {
    common_pb2.OUTPUT_MODE_UNSPECIFIED: OutputMode.TEXT,
    common_pb2.OUTPUT_MODE_TEXT: OutputMode.TEXT,
    common_pb2.OUTPUT_MODE_IMAGE: OutputMode.IMAGE,
    common_pb2.OUTPUT_MODE_INTERLEAVED: OutputMode.INTERLEAVED,
}
_PRIORITIES = {
    llm_pb2.PRIORITY_UNSPECIFIED: Priority.ROUTINE,
    llm_pb2.PRIORITY_ROUTINE: Priority.ROUTINE,
    llm_pb2.PRIORITY_URGENT: Priority.URGENT,
    llm_pb2.PRIORITY_STAT: Priority.STAT,
}
_REASONS = {
    events.FinishReason.STOP: common_pb2.FINISH_REASON_STOP,
    events.FinishReason.LENGTH: common_pb2.FINISH_REASON_LENGTH,
}

_CALLER = re.compile(r"[A-Za-z0-9._-]{0,64}")


class LanguageModelServicer:
    """Translates between the protocol's messages and the engine's types; raises `MedMaxError`s."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self._settings = settings
        self._grid = engine.checkpoint.grid
        base = engine.checkpoint.digest
        self._models = {"": common_pb2.ModelVersion(id=settings.model_id, digest=base)}
        for name, adapter in engine.adapters.items():
            version = common_pb2.ModelVersion(
                id=f"{settings.model_id}:{name}", digest=adapter.digest_with(base)
            )
            self._models[name] = version

    @classmethod
    def from_settings(cls, settings: Settings) -> LanguageModelServicer:
        """Load the checkpoint and start an engine on it.

        Raises:
            CheckpointError: the checkpoint or an adapter is incomplete or damaged.
            ConfigurationError: the settings do not fit it.
        """
        return cls(Engine(open_checkpoint(settings.checkpoint, settings.vqgan), settings), settings)

    async def Generate(
        self, request: llm_pb2.LanguageModelGenerateRequest, context: Any = None
    ) -> AsyncIterator[llm_pb2.LanguageModelEvent]:
        """Events of one answer; closing the iterator cancels the work.

        Raises:
            InvalidInput, ContextOverflow, ModelNotFound, Overloaded, DeadlineExceeded, Unavailable: as in `llm.proto`.
        """
        async with aclosing(metrics.track_tokens(self._events(request))) as answer:  # type: ignore[type-var]
            async for event in answer:
                yield event

    async def _events(
        self, request: llm_pb2.LanguageModelGenerateRequest
    ) -> AsyncIterator[llm_pb2.LanguageModelEvent]:
        span = tracing.begin("llm/answer")
        with tracing.recorded(span):
            stream = self.engine.submit(self._request(request))
            try:
                async for event in stream:
                    if span:
                        trace.tell(span, event, self._models[request.adapter].id)
                    yield self._event(event, self._models[request.adapter])
            finally:
                stream.cancel()

    @property
    def model(self) -> common_pb2.ModelVersion:
        """The weights that answer where a request names no adapter."""
        return self._models[""]

    async def check_health(self) -> None:
        """Raises: Unavailable once the engine can answer nothing more. The engine's metrics are brought up to date."""
        self.engine.check_health()
        metrics.publish_engine(asdict(self.engine.stats()))

    async def close(self) -> None:
        """Let accepted requests finish for a few seconds, then end the engine."""
        await asyncio.to_thread(self.engine.close)

    def _request(self, message: llm_pb2.LanguageModelGenerateRequest) -> GenerationRequest:
        if message.mode not in _MODES:
            raise InvalidInput(f"no such output mode: {message.mode}", field="mode")
        if message.priority not in _PRIORITIES:
            raise InvalidInput(f"no such priority: {message.priority}", field="priority")
        if not _CALLER.fullmatch(message.caller):
            raise InvalidInput("at most 64 characters of A-Z a-z 0-9 . _ -", field="caller")
        return GenerationRequest(
            prompt_ids=list(message.prompt_ids),
            mode=_MODES[message.mode],
            max_new_tokens=message.max_new_tokens if message.HasField("max_new_tokens") else None,
            max_images=message.max_images if message.HasField("max_images") else None,
            sampling=_sampling(message.sampling),
            stop=tuple(message.stop),
            top_logprobs=message.top_logprobs if message.HasField("top_logprobs") else None,
            priority=_PRIORITIES[message.priority],
            caller=message.caller,
            preview_codes=message.preview_codes,
            adapter=message.adapter,
            deadline=Deadline.after(message.context.timeout_ms, self._settings.request_timeout_s),
        )

    def _event(self, event: events.Event, model: common_pb2.ModelVersion) -> llm_pb2.LanguageModelEvent:
        if isinstance(event, events.Text):
            span = llm_pb2.TextSpan(
                text=event.text, token_ids=event.token_ids, logprobs=map(_logprob, event.logprobs)
            )
            return llm_pb2.LanguageModelEvent(text=span)
        if isinstance(event, events.Picture):
            rows, columns = self._grid
            codes = common_pb2.ImageCodes(codes=event.codes, height=rows, width=columns)
            picture = llm_pb2.ImageSpan(codes=codes, confidence=_confidence(event.confidence))
            return llm_pb2.LanguageModelEvent(image=picture)
        if isinstance(event, events.Preview):
            rows, columns = self._grid
            return llm_pb2.LanguageModelEvent(
                preview=llm_pb2.ImagePreview(codes=event.codes, height=rows, width=columns)
            )
        usage = event.usage
        return llm_pb2.LanguageModelEvent(
            finish=llm_pb2.Finish(
                reason=_REASONS[event.reason],
                usage=common_pb2.Usage(
                    prompt_tokens=usage.prompt_tokens,
                    completion_tokens=usage.completion_tokens,
                    prompt_image_tokens=usage.prompt_image_tokens,
                    completion_image_tokens=usage.completion_image_tokens,
                    images=usage.images,
                    cached_tokens=usage.cached_tokens,
                    seed=usage.seed,
                ),
                text_confidence=_confidence(event.text_confidence),
                model=model,
                queue_ms=event.queue_ms,
                first_token_ms=event.first_token_ms,
            )
        )


def _sampling(message: common_pb2.Sampling) -> SamplingRequest:
    return SamplingRequest(**{descriptor.name: value for descriptor, value in message.ListFields()})


def _confidence(value: events.Confidence) -> common_pb2.Confidence:
    return common_pb2.Confidence(
        mean_logprob=value.mean_logprob,
        min_logprob=value.min_logprob,
        mean_entropy=value.mean_entropy,
        tokens=value.tokens,
    )


def _logprob(value: events.TokenLogprob) -> llm_pb2.TokenLogprob:
    return llm_pb2.TokenLogprob(
        token_id=value.token_id,
        token=value.token,
        logprob=value.logprob,
        top=[_logprob(entry) for entry in value.top],
    )
