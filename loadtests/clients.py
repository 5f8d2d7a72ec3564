"""One request over REST or gRPC, timed event by event. Blocking calls: for threads, or for Locust's greenlets."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import httpx

from loadtests.samples import OK, Sample
from loadtests.scenarios.asks import Ask
from loadtests.stack import Target
from services.pb.medmax.v1 import assistant_pb2, assistant_pb2_grpc, common_pb2
from services.rpc.status import CODE_KEY

MODES = {
    ("text",): common_pb2.OUTPUT_MODE_TEXT,
    ("image",): common_pb2.OUTPUT_MODE_IMAGE,
    ("text", "image"): common_pb2.OUTPUT_MODE_INTERLEAVED,
}
ROLES = {"user": assistant_pb2.ROLE_USER, "assistant": assistant_pb2.ROLE_ASSISTANT}
LOST = "out_of_reach"
LATE = "client_timeout"
CUT = "stream_cut"
"""The stream ended without the answer's last event."""


@dataclass
class Watch:
    """Notes when the parts of one answer came. Times on the clock of `time.monotonic`."""

    due: float
    sent: float = field(default_factory=time.monotonic)
    first: float | None = None
    code: str = CUT
    interaction: str = ""
    server_ms: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    prompt_tokens: int = 0
    pictures: int = 0
    image_tokens: int = 0
    _text: list[float] = field(default_factory=list)

    def text(self) -> None:
        """A piece of text came."""
        self._note()
        self._text.append(time.monotonic())

    def picture(self) -> None:
        """A picture came."""
        self._note()
        self.pictures += 1

    def _note(self) -> None:
        if self.first is None:
            self.first = time.monotonic()

    def finish(self, interaction: str, server_ms: dict[str, float]) -> None:
        """The answer is complete."""
        self.code, self.interaction, self.server_ms = OK, interaction, server_ms

    def sample(self, ask: Ask, protocol: str, start: float) -> Sample:
        """What came of the request, for a test that began at `start`."""
        between = None
        if self.tokens > 1 and not self.pictures and len(self._text) > 1:
            between = (self._text[-1] - self._text[0]) / (self.tokens - 1)
        return Sample(
            ask.kind,
            protocol,
            self.due - start,
            max(0.0, self.sent - self.due),
            None if self.first is None else self.first - self.due,
            time.monotonic() - self.due,
            self.tokens,
            between,
            self.code,
            self.interaction,
            self.server_ms,
            self.prompt_tokens,
            self.pictures,
            self.image_tokens,
            int(ask.new_film),
        )


class Client(Protocol):
    """A way to the assistant."""

    def ask(self, ask: Ask, watch: Watch) -> None:
        """Runs the request to its end; what happens, failure included, is noted in `watch`."""

    def close(self) -> None: ...


class RestClient:
    """Streamed chat completions."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.Client(
            base_url=target.http, timeout=httpx.Timeout(timeout_s), limits=limits, trust_env=False
        )
        self._timeout_s = timeout_s

    def ask(self, ask: Ask, watch: Watch) -> None:
        request = self._client.stream("POST", "/v1/chat/completions", json=rest_body(ask))
        with _transport(watch), request as reply:
            if reply.is_error:
                watch.code = _error_code(reply.read()) or f"http_{reply.status_code}"
                return
            for name, data in _events(reply.iter_lines()):
                if time.monotonic() - watch.sent > self._timeout_s:
                    watch.code = LATE
                    return
                self._note(name, data, watch)

    def _note(self, name: str, data: str, watch: Watch) -> None:
        if name == "error":
            watch.code = _error_code(data.encode()) or "error"
            return
        if data == "[DONE]":
            watch.finish(watch.interaction, watch.server_ms)
            return
        chunk = json.loads(data)
        if usage := chunk.get("usage"):
            watch.tokens = usage["completion_tokens_details"]["text_tokens"]
            watch.image_tokens = usage["completion_tokens_details"]["image_tokens"]
            watch.prompt_tokens = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
        for choice in chunk["choices"]:
            if choice["delta"].get("content"):
                watch.text()
            if choice["delta"].get("images"):
                watch.picture()
            if choice["finish_reason"]:
                watch.interaction = chunk.get("interaction_id") or ""
                watch.server_ms = chunk["latency"]

    def close(self) -> None:
        self._client.close()


class GrpcClient:
    """`Assistant.Generate`."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self._channel = grpc.insecure_channel(target.grpc)
        self._stub = assistant_pb2_grpc.AssistantStub(self._channel)
        self._timeout_s = timeout_s

    def ask(self, ask: Ask, watch: Watch) -> None:
        try:
            for event in self._stub.Generate(grpc_request(ask), timeout=self._timeout_s):
                kind = event.WhichOneof("event")
                if kind == "text":
                    watch.text()
                elif kind == "image":
                    watch.picture()
                else:
                    usage, latency = event.finish.usage, event.finish.latency
                    watch.tokens = usage.completion_tokens - usage.completion_image_tokens
                    watch.image_tokens = usage.completion_image_tokens
                    watch.prompt_tokens = usage.prompt_tokens - usage.cached_tokens
                    watch.finish(
                        event.finish.interaction_id,
                        {each.name: getattr(latency, each.name) for each in latency.DESCRIPTOR.fields},
                    )
        except grpc.RpcError as error:
            known = {key: value for key, value in error.trailing_metadata() or () if key == CODE_KEY}
            status = error.code()
            plain = {grpc.StatusCode.UNAVAILABLE: LOST, grpc.StatusCode.DEADLINE_EXCEEDED: LATE}
            watch.code = str(known.get(CODE_KEY) or plain.get(status, status.name.lower()))

    def close(self) -> None:
        self._channel.close()


CLIENTS: dict[str, Callable[[Target, float], Client]] = {"rest": RestClient, "grpc": GrpcClient}


def rest_body(ask: Ask) -> dict[str, Any]:
    """The request in OpenAI's dialect."""
    messages = []
    for turn in ask.turns:
        content: list[dict[str, Any]] = [{"type": "text", "text": turn.text}]
        if turn.picture:
            url = "data:image/png;base64," + base64.b64encode(turn.picture).decode()
            content.insert(0, {"type": "image_url", "image_url": {"url": url}})
        messages.append({"role": turn.role, "content": content})
    return {
        "messages": messages,
        "modalities": list(ask.outputs),
        "seed": ask.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def grpc_request(ask: Ask) -> assistant_pb2.GenerateRequest:
    """The request in the contract's form."""
    request = assistant_pb2.GenerateRequest(mode=MODES[ask.outputs])
    request.sampling.seed = ask.seed
    for turn in ask.turns:
        message = request.messages.add(role=ROLES[turn.role])
        if turn.picture:
            message.parts.add(image=assistant_pb2.ImagePart(data=turn.picture))
        message.parts.add(text=turn.text)
    return request


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Name and data of each server-sent event."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, line[6:]
            name = ""


def _error_code(body: bytes) -> str | None:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return None


@contextmanager
def _transport(watch: Watch) -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException:
        watch.code = LATE
    except httpx.TransportError:
        watch.code = LOST
