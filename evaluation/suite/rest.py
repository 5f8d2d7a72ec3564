"""Any OpenAI-compatible server as a model; ours also draws and says how sure it is."""

from __future__ import annotations

import asyncio
import base64
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from evaluation.suite.example import Answer, Question
from services.errors import DeadlineExceeded, InvalidInput, MedMaxError, Overloaded, Unavailable, from_wire

MAX_REPLY_BYTES = 256 << 20


def loopback(url: str) -> bool:
    """Whether the address is this machine's; a proxy for the outside must not see what goes there."""
    return httpx.URL(url).host in {"127.0.0.1", "localhost", "::1"}


class OverRest:
    """`POST /v1/chat/completions`, not streamed. Use with `async with`.

    Args:
        url: with or without `/v1` at its end.
        key: sent as a bearer token; empty: none.
        timeout_s: of one request.
        model_id: None: the first that `GET /v1/models` lists.

    Raises:
        InvalidInput: no address.
        Unavailable: on entering, where no model is listed.
    """

    def __init__(self, url: str, key: str, timeout_s: float, model_id: str | None) -> None:
        try:
            base = url.rstrip("/").removesuffix("/v1")
            self._client = httpx.AsyncClient(
                base_url=base,
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=httpx.Timeout(timeout_s, connect=10),
                limits=httpx.Limits(max_connections=None),
                trust_env=not loopback(base),
            )
        except httpx.InvalidURL:
            raise InvalidInput("is no address", field="--model") from None
        self.where = base
        self._model_id = model_id

    async def __aenter__(self) -> Self:
        if self._model_id is None:
            listed = await self._json("GET", "/v1/models")
            try:
                self._model_id = str(listed["data"][0]["id"])
            except (KeyError, IndexError, TypeError):
                raise Unavailable("the server lists no model; name one with --model-id") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def answer(self, question: Question) -> Answer:
        begun = time.monotonic()
        body = await asyncio.to_thread(self._body, question)
        reply = await self._json("POST", "/v1/chat/completions", body)
        try:
            choice = reply["choices"][0]
            message = choice["message"]
            text = message.get("content") or ""
            if parts := message.get("parts"):
                text = "\n".join(str(part["text"]) for part in parts if part.get("type") == "text")
            pictures = tuple(_picture(image) for image in message.get("images") or ())
            sure = reply.get("confidence") or {}
            logprob = sure.get("mean_logprob")
            return Answer(
                text=str(text).strip(),
                pictures=pictures,
                confidence=math.exp(min(float(logprob), 0.0)) if logprob is not None else None,
                model=str(reply.get("model") or self._model_id),
                digest=str(reply.get("system_fingerprint") or ""),
                finish=str(choice.get("finish_reason") or ""),
                latency_ms=(time.monotonic() - begun) * 1000,
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise Unavailable("the server's answer is no chat completion") from None

    def _body(self, question: Question) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model_id,
            "messages": [{"role": "user", "content": [_content(part) for part in question.parts]}],
            "temperature": 0,
            "seed": question.seed,
            "store": False,
        }
        if question.mode != "text":
            body["modalities"] = ["image"] if question.mode == "image" else ["text", "image"]
        if question.max_new_tokens is not None:
            body["max_completion_tokens"] = question.max_new_tokens
        return body

    async def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            reply = await self._client.request(method, path, json=body)
        except httpx.TimeoutException:
            raise DeadlineExceeded("the server took too long") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"no answer from {self.where} ({type(error).__name__})") from None
        if reply.is_error:
            raise _error(reply)
        if len(reply.content) > MAX_REPLY_BYTES:
            raise Unavailable(f"the server's answer has more than {MAX_REPLY_BYTES:,} bytes")
        try:
            return reply.json()
        except ValueError:
            raise Unavailable("the server's answer is no JSON") from None


def _content(part: str | Path) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}.get(part.suffix.lower())
    data = base64.b64encode(part.read_bytes()).decode()
    return {
        "type": "image_url",
        "image_url": {"url": f"data:{kind or 'application/octet-stream'};base64,{data}"},
    }


def _picture(image: Any) -> bytes:
    head, _, data = image["image_url"]["url"].partition(",")
    if not head.startswith("data:"):
        raise ValueError("an address, not a picture")
    return base64.b64decode(data, validate=True)


def _error(reply: httpx.Response) -> MedMaxError:
    try:
        retry: float | None = float(reply.headers["Retry-After"])
    except (KeyError, ValueError):
        retry = None
    try:
        described = reply.json()["error"]
        code, message, field = (
            str(described.get("code") or ""),
            str(described["message"])[:500],
            described.get("param"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        code, message, field = "", f"status {reply.status_code}", None
    if reply.status_code == 429:
        return Overloaded(message, retry_after_s=retry)
    if reply.status_code >= 500 and code not in ("deadline_exceeded",):
        return Unavailable(message, retry_after_s=retry)
    error = from_wire(code, message, field, retry)
    if error.code == "internal_error":  # a code that is not ours
        return InvalidInput(message, field=field)
    return error
