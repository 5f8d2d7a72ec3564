"""Who answers: a server over REST or gRPC, or the whole assistant in this process."""

from __future__ import annotations

import asyncio
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from evaluation.suite.example import Answer, Question
from services.errors import InvalidInput, Overloaded, Unavailable
from services.pb.medmax.v1 import assistant_pb2, common_pb2

RETRIES = 4
_MODES = {
    "text": common_pb2.OUTPUT_MODE_TEXT,
    "image": common_pb2.OUTPUT_MODE_IMAGE,
    "interleaved": common_pb2.OUTPUT_MODE_INTERLEAVED,
}


class Model(Protocol):
    """Answers questions, any number at a time."""

    @property
    def where(self) -> str:
        """The address, or `in process`, without any key."""

    async def answer(self, question: Question) -> Answer:
        """Raises: the errors of `services.errors`."""


async def patiently(model: Model, question: Question, first_wait_s: float = 0.5) -> Answer:
    """The model's answer; an overloaded or unreachable one is asked again, at most RETRIES times."""
    for attempt in range(RETRIES + 1):
        try:
            return await model.answer(question)
        except (Overloaded, Unavailable) as error:
            if attempt == RETRIES:
                raise
            await asyncio.sleep(min(60.0, error.retry_after_s or first_wait_s * 2**attempt))
    raise AssertionError("unreachable")


def request_of(question: Question) -> assistant_pb2.GenerateRequest:
    """The contract's request; reads the pictures' files."""
    parts = [
        assistant_pb2.Part(image=assistant_pb2.ImagePart(data=part.read_bytes()))
        if isinstance(part, Path)
        else assistant_pb2.Part(text=part)
        for part in question.parts
    ]
    request = assistant_pb2.GenerateRequest(
        messages=[assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=parts)],
        mode=_MODES[question.mode],
        sampling=common_pb2.Sampling(temperature=0.0, seed=question.seed),
        store=False,
    )
    if question.max_new_tokens is not None:
        request.max_new_tokens = question.max_new_tokens
    return request


class _Streaming(ABC):
    """Puts an answer together from the contract's events."""

    where = ""

    @abstractmethod
    def _events(
        self, request: assistant_pb2.GenerateRequest
    ) -> AsyncIterator[assistant_pb2.GenerateEvent]: ...

    async def answer(self, question: Question) -> Answer:
        begun = time.monotonic()
        texts: list[str] = []
        pictures: list[bytes] = []
        finish = assistant_pb2.GenerateFinish()
        request = await asyncio.to_thread(request_of, question)
        async with aclosing(cast(Any, self._events(request))) as events:
            async for event in events:
                if event.HasField("text"):
                    texts.append(event.text.text)
                elif event.HasField("image"):
                    pictures.append(event.image.data)
                    texts.append("\n")
                else:
                    finish = event.finish
        sure = finish.text_confidence
        return Answer(
            text="".join(texts).strip(),
            pictures=tuple(pictures),
            confidence=math.exp(min(sure.mean_logprob, 0.0)) if sure.tokens else None,
            model=finish.model.id,
            digest=finish.model.digest,
            finish=common_pb2.FinishReason.Name(finish.reason).removeprefix("FINISH_REASON_").lower(),
            latency_ms=(time.monotonic() - begun) * 1000,
        )


class InProcess(_Streaming):
    """The services in this process."""

    where = "in process"

    def __init__(self, assistant: Any) -> None:
        self._assistant = assistant

    def _events(self, request: assistant_pb2.GenerateRequest) -> AsyncIterator[assistant_pb2.GenerateEvent]:
        return cast(Any, self._assistant.generate(request, "evaluation"))  # type: ignore[no-any-return]


class OverGrpc(_Streaming):
    """`medmax.v1.Assistant` at `grpc://host:port`."""

    def __init__(self, channel: Any, where: str, key: str, timeout_s: float) -> None:
        from services.pb.medmax.v1 import assistant_pb2_grpc

        self.where = where
        self._stub = assistant_pb2_grpc.AssistantStub(channel)
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()
        self._timeout_s = timeout_s

    async def _events(
        self, request: assistant_pb2.GenerateRequest
    ) -> AsyncIterator[assistant_pb2.GenerateEvent]:
        import grpc.aio

        from services.rpc.status import error_of

        call = cast(Any, self._stub).Generate(request, timeout=self._timeout_s, metadata=self._metadata)
        try:
            async for event in call:
                yield event
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure, "assistant") from None
        finally:
            call.cancel()


@asynccontextmanager
async def connect(
    model: str | None, timeout_s: float = 600.0, model_id: str | None = None
) -> AsyncIterator[Model]:
    """The model that `--model` names, for as long as the context lasts.

    Args:
        model: `http(s)://…` (REST), `grpc://host:port`, a checkpoint directory, or None: the configured checkpoint.
        timeout_s: of one request.
        model_id: for servers that want one; None: the first that the server lists.

    Raises:
        InvalidInput: neither an address nor a directory.
        CheckpointError, Unavailable: it cannot be loaded or reached.
    """
    key = os.environ.get("MEDMAX_API_KEY", "")
    if model is not None and model.startswith(("http://", "https://")):
        from evaluation.suite.rest import OverRest

        async with OverRest(model, key, timeout_s, model_id) as rest:
            yield rest
        return
    if model is not None and model.startswith("grpc://"):
        import grpc.aio

        from services.config import load
        from services.rpc.server import message_options

        address = model.removeprefix("grpc://").rstrip("/")
        async with grpc.aio.insecure_channel(address, message_options(load())) as channel:
            try:
                await asyncio.wait_for(channel.channel_ready(), 10)
            except TimeoutError:
                raise Unavailable(f"no server answers at {model}", field="--model") from None
            yield OverGrpc(channel, model, key, timeout_s)
        return
    if model is not None and not Path(model).is_dir():
        raise InvalidInput(
            "is neither http(s)://…, grpc://host:port nor a checkpoint directory", field="--model"
        )
    from services import config
    from services.gateway.local import local_assistant

    # Nothing of an evaluation is an interaction, and its requests wait for their turn.
    changes: dict[str, Any] = {"store": False, "request_timeout_s": 3600}
    settings = config.load(**changes, **({"checkpoint": Path(model)} if model else {}))
    async with local_assistant(settings) as assistant:
        yield InProcess(assistant)
