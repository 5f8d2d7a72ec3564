"""A running server, over its REST API."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from services.config import Settings
from services.errors import DeadlineExceeded, MedMaxError, Unavailable, from_wire
from services.pb.medmax.v1 import assistant_pb2, common_pb2, llm_pb2

_ROLES = {
    assistant_pb2.ROLE_SYSTEM: "system",
    assistant_pb2.ROLE_USER: "user",
    assistant_pb2.ROLE_ASSISTANT: "assistant",
}
_FORMATS = {
    common_pb2.IMAGE_FORMAT_PNG: "png",
    common_pb2.IMAGE_FORMAT_JPEG: "jpeg",
    common_pb2.IMAGE_FORMAT_WEBP: "webp",
}
_REASONS = {"stop": common_pb2.FINISH_REASON_STOP, "length": common_pb2.FINISH_REASON_LENGTH}


def answers_as_medmax(url: str, timeout_s: float = 1.0) -> bool:
    """Whether a server of ours listens at `url`, ready or still starting."""
    try:
        with httpx.Client(base_url=url, timeout=timeout_s, trust_env=not _is_loopback(url)) as client:
            return "/v1/chat/completions" in client.get("/openapi.json").json()["paths"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return False


def _is_loopback(url: str) -> bool:
    try:
        return httpx.URL(url).host in {"127.0.0.1", "localhost", "::1"}
    except httpx.InvalidURL:
        return False


class RemoteAssistant:
    """Speaks `/v1/chat/completions` (streamed) and `/v1/images/generations`. Use with `async with`."""

    def __init__(self, url: str, key: str, settings: Settings) -> None:
        self.where = f"at {url}"
        headers = {"X-Request-Timeout-Ms": str(int(settings.request_timeout_s * 1000))}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(settings.request_timeout_s + 10, connect=10),
            # A proxy for the outside must not see what goes to this machine.
            trust_env=not _is_loopback(url),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def generate(
        self, request: assistant_pb2.GenerateRequest
    ) -> AsyncIterator[assistant_pb2.GenerateEvent]:
        """The server's answer as events. Raises the server's errors; Unavailable where the connection breaks."""
        source = self._draw if request.mode == common_pb2.OUTPUT_MODE_IMAGE else self._chat
        try:
            async for event in source(request):
                yield event
        except httpx.TimeoutException:
            raise DeadlineExceeded("the server took too long") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"the connection to the server broke ({type(error).__name__})") from None
        except (ValueError, KeyError, IndexError, TypeError):
            raise Unavailable("the server's answer makes no sense; is it a MedMax server?") from None

    async def _chat(
        self, request: assistant_pb2.GenerateRequest
    ) -> AsyncIterator[assistant_pb2.GenerateEvent]:
        begun = time.monotonic()
        finish = assistant_pb2.GenerateFinish()
        complete = False
        async with self._client.stream("POST", "/v1/chat/completions", json=_chat_body(request)) as response:
            if response.is_error:
                await response.aread()
                raise _error(response)
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    complete = True
                    break
                chunk = json.loads(data)
                if "error" in chunk:
                    raise _described(chunk["error"], None)
                for event in _events(chunk):
                    yield event
                _note(chunk, finish)
        if not complete:
            raise Unavailable("the server broke off its answer; try again")
        if not finish.latency.total_ms:
            finish.latency.total_ms = (time.monotonic() - begun) * 1000
        yield assistant_pb2.GenerateEvent(finish=finish)

    async def _draw(
        self, request: assistant_pb2.GenerateRequest
    ) -> AsyncIterator[assistant_pb2.GenerateEvent]:
        begun = time.monotonic()
        response = await self._client.post("/v1/images/generations", json=_images_body(request))
        if response.is_error:
            raise _error(response)
        reply = response.json()
        drawn = reply["data"][0]
        yield assistant_pb2.GenerateEvent(
            image=assistant_pb2.ImagePart(
                data=base64.b64decode(drawn["b64_json"], validate=True),
                mime_type=f"image/{reply['output_format']}",
                **_facts(drawn),
            )
        )
        usage = reply["usage"]
        finish = assistant_pb2.GenerateFinish(
            interaction_id=drawn["interaction_id"] or "",
            reason=common_pb2.FINISH_REASON_STOP,
            usage=common_pb2.Usage(
                prompt_tokens=usage["input_tokens"],
                completion_tokens=usage["output_tokens"],
                prompt_image_tokens=usage["input_tokens_details"]["image_tokens"],
                completion_image_tokens=usage["output_tokens_details"]["image_tokens"],
                images=1,
                seed=drawn["seed"],
            ),
            model=common_pb2.ModelVersion(id=reply["model"], digest=reply["system_fingerprint"]),
            latency=assistant_pb2.Latency(total_ms=(time.monotonic() - begun) * 1000),
        )
        yield assistant_pb2.GenerateEvent(finish=finish)


def _chat_body(request: assistant_pb2.GenerateRequest) -> dict[str, Any]:
    interleaved = request.mode == common_pb2.OUTPUT_MODE_INTERLEAVED
    body: dict[str, Any] = {
        "messages": [_message(message) for message in request.messages],
        "modalities": ["text", "image"] if interleaved else ["text"],
        "stream": True,
        "stream_options": {"include_usage": True},
        **_model(request),
    }
    if request.HasField("max_new_tokens"):
        body["max_completion_tokens"] = request.max_new_tokens
    for name in ("temperature", "seed"):
        if request.sampling.HasField(name):
            body[name] = getattr(request.sampling, name)
    return body


def _model(request: assistant_pb2.GenerateRequest) -> dict[str, Any]:
    return {"model": f":{request.adapter}"} if request.adapter else {}


def _message(message: assistant_pb2.Message) -> dict[str, Any]:
    if message.role != assistant_pb2.ROLE_ASSISTANT:
        return {"role": _ROLES[message.role], "content": [_part(part) for part in message.parts]}
    images: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for part in message.parts:
        if part.WhichOneof("part") == "image":
            parts.append({"type": "image", "index": len(images)})
            images.append(_part(part))
        else:
            parts.append(_part(part))
    return {"role": "assistant", "images": images, "parts": parts}


def _part(part: assistant_pb2.Part) -> dict[str, Any]:
    if part.WhichOneof("part") == "text":
        return {"type": "text", "text": part.text}
    image = part.image
    # The server reads the kind of file from the bytes.
    url: dict[str, Any] = {
        "url": "data:application/octet-stream;base64," + base64.b64encode(image.data).decode()
    }
    if image.HasField("window"):
        url["window"] = {"center": image.window.center, "width": image.window.width}
    return {"type": "image_url", "image_url": url}


def _images_body(request: assistant_pb2.GenerateRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": request.messages[0].parts[0].text,
        "output_format": _FORMATS[request.image_format],
        "visible_mark": request.visible_mark,
        **_model(request),
    }
    if request.HasField("image_size"):
        body["size"] = f"{request.image_size}x{request.image_size}"
    if request.sampling.HasField("seed"):
        body["seed"] = request.sampling.seed
    return body


def _events(chunk: Mapping[str, Any]) -> list[assistant_pb2.GenerateEvent]:
    events = []
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        if delta.get("content"):
            events.append(assistant_pb2.GenerateEvent(text=llm_pb2.TextSpan(text=delta["content"])))
        for image in delta.get("images") or ():
            head, _, data = image["image_url"]["url"].partition(",")
            part = assistant_pb2.ImagePart(
                data=base64.b64decode(data, validate=True),
                mime_type=head.removeprefix("data:").partition(";")[0],
                **_facts(image),
            )
            events.append(assistant_pb2.GenerateEvent(image=part))
    return events


def _facts(image: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "width": image["width"],
        "height": image["height"],
        "sha256": image["sha256"],
        "synthetic": image["synthetic"],
        "confidence": _confidence(image.get("confidence")),
    }


def _confidence(value: Mapping[str, Any] | None) -> common_pb2.Confidence:
    return common_pb2.Confidence(**{k: v for k, v in (value or {}).items() if v is not None})


def _note(chunk: Mapping[str, Any], finish: assistant_pb2.GenerateFinish) -> None:
    """Take over what a chunk says about the whole answer."""
    finish.model.id = chunk.get("model") or finish.model.id
    finish.model.digest = chunk.get("system_fingerprint") or finish.model.digest
    finish.interaction_id = chunk.get("interaction_id") or finish.interaction_id
    for choice in chunk.get("choices") or ():
        finish.reason = _REASONS.get(choice.get("finish_reason"), finish.reason)
    if confidence := chunk.get("confidence"):
        finish.text_confidence.CopyFrom(_confidence(confidence))
    if latency := chunk.get("latency"):
        finish.latency.CopyFrom(assistant_pb2.Latency(**latency))
    if usage := chunk.get("usage"):
        finish.usage.CopyFrom(
            common_pb2.Usage(
                prompt_tokens=usage["prompt_tokens"],
                completion_tokens=usage["completion_tokens"],
                prompt_image_tokens=usage["prompt_tokens_details"]["image_tokens"],
                completion_image_tokens=usage["completion_tokens_details"]["image_tokens"],
                cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
                images=usage["images"],
                seed=usage["seed"],
            )
        )


def _error(response: httpx.Response) -> MedMaxError:
    try:
        described = response.json()["error"]
        retry = response.headers.get("Retry-After")
        return _described(described, float(retry) if retry else None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Unavailable(f"the server answered with status {response.status_code}")


def _described(error: Mapping[str, Any], retry_after_s: float | None) -> MedMaxError:
    field = error.get("param")
    message = str(error["message"])
    if field:
        message = message.removeprefix(f"{field}: ")
    return from_wire(str(error["code"]), message, field, retry_after_s)
