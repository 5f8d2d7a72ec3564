"""One answer in the making: pictures to codes, prompt to the model, spans to events, the record to the store."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from services import tracing
from services.config import Settings
from services.deadline import Deadline
from services.errors import Cancelled, DeadlineExceeded, InvalidInput, MedMaxError, Unavailable
from services.gateway import prompt, record
from services.gateway.backends import DecoderBackend, LanguageModelBackend, Store, TokenizerBackend
from services.gateway.model import ServedModel
from services.gateway.tasks import all_or_none, stop
from services.gateway.validate import pictures
from services.pb.medmax.v1 import assistant_pb2, common_pb2, decoder_pb2, llm_pb2, tokenizer_pb2
from services.tracing import OFF, Span

log = logging.getLogger(__name__)
T = TypeVar("T")

LONG_TEXT_CHARS = 4096  # above this, encoding would hold up the event loop

# What the language model's stream turns into, in its order.
Item = llm_pb2.TextSpan | asyncio.Task[assistant_pb2.ImagePart] | llm_pb2.Finish | Exception


@dataclass(frozen=True)
class Backends:
    """Where the work is done."""

    tokenizer: TokenizerBackend
    llm: LanguageModelBackend
    decoder: DecoderBackend
    store: Store | None


@dataclass
class Answer:
    """One checked request on its way through the services. `events` may be run once."""

    request: assistant_pb2.GenerateRequest
    caller: str
    settings: Settings
    model: ServedModel
    backends: Backends
    deadline: Deadline
    span: Span = OFF
    started: float = field(default_factory=time.monotonic)
    latency: assistant_pb2.Latency = field(default_factory=assistant_pb2.Latency)
    output: list[assistant_pb2.Part] = field(default_factory=list)
    sources: list[tokenizer_pb2.TokenizeResponse] = field(default_factory=list)

    async def events(self) -> AsyncIterator[assistant_pb2.GenerateEvent]:
        """Text and pictures in the model's order, then `finish`. Closing the generator frees all work."""
        request = await self._model_request()
        items: asyncio.Queue[Item] = asyncio.Queue()
        reader = asyncio.create_task(self._read_model(request, items))
        decodes: list[asyncio.Task[assistant_pb2.ImagePart]] = []
        finish = None
        try:
            while finish is None:
                item = await self._in_time(items.get())
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, llm_pb2.Finish):
                    finish = item
                elif isinstance(item, asyncio.Task):
                    decodes.append(item)
                    image = await self._in_time(item)
                    self.output.append(assistant_pb2.Part(image=image))
                    yield assistant_pb2.GenerateEvent(image=image)
                else:
                    self._add_text(item.text)
                    yield assistant_pb2.GenerateEvent(text=item)
        finally:
            while not items.empty():
                if isinstance(item := items.get_nowait(), asyncio.Task):
                    decodes.append(item)
            await stop(reader, *decodes)
        yield assistant_pb2.GenerateEvent(finish=await self._finish(finish))

    async def _model_request(self) -> llm_pb2.LanguageModelGenerateRequest:
        request, model = self.request, self.model
        image_mode = request.mode == common_pb2.OUTPUT_MODE_IMAGE
        chars = sum(len(part.text) for message in request.messages for part in message.parts)
        if chars > LONG_TEXT_CHARS:
            built = await asyncio.to_thread(prompt.build, request.messages, model.vocabulary)
        else:
            built = prompt.build(request.messages, model.vocabulary)
        built.check_fits(model.span, model.context, model.span if image_mode else 1)
        room = model.context - built.length(model.span)
        wanted = request.max_new_tokens if request.HasField("max_new_tokens") else room
        if image_mode and wanted < model.span:
            raise InvalidInput(
                f"must be at least {model.span:,}, the tokens of one picture", field="max_new_tokens"
            )

        begun = time.monotonic()
        codes = await self._tokenize()
        self.latency.tokenize_ms = _ms_since(begun)
        result = llm_pb2.LanguageModelGenerateRequest(
            context=self._context(),
            prompt_ids=built.ids(codes, model.vocabulary),
            mode=request.mode,
            max_new_tokens=min(wanted, room),
            sampling=model.sampling(request.sampling),
            stop=request.stop,
            priority=request.priority,
            caller=self.caller,
            adapter=request.adapter,
        )
        if request.HasField("max_images"):
            result.max_images = request.max_images
        if request.HasField("top_logprobs"):
            result.top_logprobs = request.top_logprobs
        return result

    async def _tokenize(self) -> list[Sequence[int]]:
        self.sources = await self._in_time(
            all_or_none(self._tokenize_one(place, image) for place, image in pictures(self.request.messages))
        )
        rows, columns = self.model.grid
        for source in self.sources:
            if len(source.codes.codes) != rows * columns:
                log.error(
                    "tokenizer gave %d codes, the model takes %d", len(source.codes.codes), rows * columns
                )
                raise Unavailable("the tokenizer serves another model than the language model")
        return [source.codes.codes for source in self.sources]

    async def _tokenize_one(
        self, place: str, image: assistant_pb2.ImagePart
    ) -> tokenizer_pb2.TokenizeResponse:
        request = tokenizer_pb2.TokenizeRequest(context=self._context(), image=image.data)
        if image.HasField("window"):
            request.window.CopyFrom(image.window)
        try:
            with tracing.span("tokenizer/Tokenize", "client") as span:
                source = await self.backends.tokenizer.Tokenize(request)
                if span:
                    span.set({"medmax.cached": source.cached, "medmax.format": source.source_format})
            return source
        except InvalidInput as error:
            name = error.field or "image"
            below = "" if name == "image" else f".{name.removeprefix('image.')}"
            raise type(error)(error.message, field=f"{place}.image{below}") from None

    async def _read_model(
        self, request: llm_pb2.LanguageModelGenerateRequest, items: asyncio.Queue[Item]
    ) -> None:
        begun = time.monotonic()
        finish = None
        try:
            # Protocols type an async generator as an iterator; every backend's is closable.
            stream = cast(Any, self.backends.llm.Generate(request))
            with tracing.span("llm/Generate", "client") as call:
                # Read to its end, beyond `finish`: let go of earlier, it would be counted as cancelled there.
                async with aclosing(stream) as events:
                    async for event in events:
                        if not self.latency.first_token_ms:
                            self.latency.first_token_ms = _ms_since(self.started)
                        kind = event.WhichOneof("event")
                        if kind == "text":
                            items.put_nowait(event.text)
                        elif kind == "image":
                            items.put_nowait(asyncio.create_task(self._decode(event.image, call)))
                        elif kind == "finish":
                            self.latency.generate_ms = _ms_since(begun)
                            finish = event.finish
            items.put_nowait(
                finish or Unavailable("the language model stopped before its answer was complete")
            )
        except asyncio.CancelledError:
            # Cancelled from within a backend, the reader of `items` must not wait for ever.
            items.put_nowait(Cancelled("the work was cancelled"))
            raise
        except Exception as error:
            items.put_nowait(finish or error)  # what comes after the end spoils nothing

    async def _decode(self, span: llm_pb2.ImageSpan, source: Span) -> assistant_pb2.ImagePart:
        begun = time.monotonic()
        request = decoder_pb2.DecodeRequest(
            context=self._context(),
            codes=span.codes,
            format=self.request.image_format,
            visible_mark=self.request.visible_mark,
        )
        if self.request.HasField("image_size"):
            request.size = self.request.image_size
        try:
            # Not below the language model's call, which may end earlier.
            with tracing.span("decoder/Decode", "client", self.span, [source]):
                picture = await self.backends.decoder.Decode(request)
        except InvalidInput as error:  # the request was checked, so it is not the caller's
            log.error("the decoder refused %s: %s", error.field, error.message)
            raise Unavailable("the decoder serves another model than the language model") from None
        self.latency.decode_ms += _ms_since(begun)
        return assistant_pb2.ImagePart(
            data=picture.image,
            mime_type=picture.mime_type,
            width=picture.width,
            height=picture.height,
            sha256=hashlib.sha256(picture.image).hexdigest(),
            synthetic=True,
            confidence=span.confidence,
        )

    def _add_text(self, text: str) -> None:
        if self.output and self.output[-1].WhichOneof("part") == "text":
            self.output[-1].text += text
        elif text:
            self.output.append(assistant_pb2.Part(text=text))

    async def _finish(self, finish: llm_pb2.Finish) -> assistant_pb2.GenerateFinish:
        self.latency.total_ms = _ms_since(self.started)
        event = assistant_pb2.GenerateFinish(
            reason=finish.reason,
            usage=finish.usage,
            text_confidence=finish.text_confidence,
            model=finish.model,
            latency=self.latency,
        )
        if self.span:
            self._tell(event)
        wanted = self.request.store if self.request.HasField("store") else True
        if self.backends.store is not None and self.settings.store and wanted:
            event.interaction_id = await self._save(self.backends.store, event)
        return event

    def _tell(self, finish: assistant_pb2.GenerateFinish) -> None:
        usage, latency = finish.usage, finish.latency
        self.span.set(
            {
                "gen_ai.response.model": finish.model.id,
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
                "medmax.input_pictures": len(self.sources),
                "medmax.pictures": usage.images,
                "medmax.first_token_ms": round(latency.first_token_ms, 3),
            }
        )

    async def _save(self, store: Store, finish: assistant_pb2.GenerateFinish) -> str:
        interaction = record.interaction(
            self.request,
            finish,
            caller=self.caller,
            output=self.output,
            sources=self.sources,
            sampling=self.model.sampling(self.request.sampling),
            retention_days=self.settings.retention_days,
        )
        try:
            with tracing.span("interactions/save"):
                await self._in_time(store.save(interaction))
        except MedMaxError:
            raise
        except Exception as error:
            log.error("storing an interaction failed: %s", type(error).__name__)
            raise Unavailable("the answer could not be stored; try again", retry_after_s=1) from error
        return interaction.id

    def _context(self) -> common_pb2.RequestContext:
        return common_pb2.RequestContext(
            request_id=self.request.context.request_id, timeout_ms=self.deadline.remaining_ms
        )

    async def _in_time(self, awaitable: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self.deadline.remaining_s) as limit:
                return await awaitable
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded("the request's time ran out", field="context.timeout_ms") from None


def _ms_since(begun: float) -> float:
    return (time.monotonic() - begun) * 1000
