"""An answer's events as one chat completion, or as chunks of one."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from services.gateway.rest import render
from services.pb.medmax.v1 import assistant_pb2, common_pb2

Events = AsyncIterator[assistant_pb2.GenerateEvent]


@dataclass
class Completion:
    """What the objects of one answer share.

    Attributes:
        with_images: the caller asked for pictures, so the reply says where they are even if there are none.
        with_logprobs: the caller asked for log-probabilities.
    """

    model: str
    with_images: bool
    with_logprobs: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, request: assistant_pb2.GenerateRequest, model: str) -> Completion:
        drawn = (common_pb2.OUTPUT_MODE_IMAGE, common_pb2.OUTPUT_MODE_INTERLEAVED)
        return cls(model, request.mode in drawn, request.HasField("top_logprobs"))

    async def reply(self, events: Events) -> dict[str, Any]:
        """The whole answer as a `chat.completion`."""
        texts: list[str] = []
        images: list[dict[str, Any]] = []
        parts: list[dict[str, Any]] = []
        logprobs: list[dict[str, Any]] = []
        finish = assistant_pb2.GenerateFinish()
        async with aclosing(cast(Any, events)) as stream:
            async for event in stream:
                kind = event.WhichOneof("event")
                if kind == "text":
                    texts.append(event.text.text)
                    logprobs.extend(render.logprobs(event.text.logprobs))
                    if parts and parts[-1]["type"] == "text":
                        parts[-1]["text"] += event.text.text
                    elif event.text.text:
                        parts.append({"type": "text", "text": event.text.text})
                elif kind == "image":
                    parts.append({"type": "image", "index": len(images)})
                    images.append(render.picture(event.image, len(images)))
                else:
                    finish = event.finish
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(texts) if texts or not images else None,
            "refusal": None,
        }
        if self.with_images:
            message |= {"images": images, "parts": parts}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": {"content": logprobs, "refusal": None} if self.with_logprobs else None,
            "finish_reason": render.REASONS.get(finish.reason, "stop"),
        }
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": render.usage(finish.usage),
            **_tail(finish),
        }

    async def chunks(self, events: Events, include_usage: bool) -> AsyncIterator[dict[str, Any]]:
        """`chat.completion.chunk`s as the events come; the last one with a choice has what `finish` told."""
        images = 0
        no_usage = {"usage": None} if include_usage else {}
        start: dict[str, Any] = {"role": "assistant", "content": ""}
        async with aclosing(cast(Any, events)) as stream:
            async for event in stream:
                kind = event.WhichOneof("event")
                if kind == "finish":
                    reason = render.REASONS.get(event.finish.reason, "stop")
                    yield {**self._chunk(start, reason), **no_usage, **_tail(event.finish)}
                    if include_usage:
                        usage = render.usage(event.finish.usage)
                        yield {
                            **self._head("chat.completion.chunk"),
                            "choices": [],
                            "usage": usage,
                            "system_fingerprint": event.finish.model.digest,
                        }
                    return
                if kind == "image":
                    delta = {**start, "images": [render.picture(event.image, images)]}
                    images += 1
                    chunk = self._chunk(delta)
                else:
                    chunk = self._chunk({**start, "content": event.text.text})
                    if self.with_logprobs:
                        content = render.logprobs(event.text.logprobs)
                        chunk["choices"][0]["logprobs"] = {"content": content, "refusal": None}
                start = {}
                yield {**chunk, **no_usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}


def _tail(finish: assistant_pb2.GenerateFinish) -> dict[str, Any]:
    return {
        "system_fingerprint": finish.model.digest,
        "interaction_id": finish.interaction_id or None,
        "confidence": render.confidence(finish.text_confidence),
        "latency": render.latency(finish.latency),
    }
