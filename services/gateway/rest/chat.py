"""OpenAI's chat dialect to a `GenerateRequest`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from services.config import Settings
from services.errors import InvalidInput, UnsupportedField
from services.gateway.access import split_model
from services.gateway.limits import MAX_INPUT_IMAGES, SAMPLING
from services.gateway.rest import dialect, media
from services.gateway.rest.body import parse_object
from services.gateway.rest.errors import invalid
from services.gateway.rest.names import Names
from services.gateway.rest.schemas import (
    ChatMessage,
    ChatRequest,
    Common,
    ImageReference,
    ImageUrl,
    TextPart,
    Window,
)
from services.pb.medmax.v1 import assistant_pb2, common_pb2, llm_pb2

ROLES = {
    "system": assistant_pb2.ROLE_SYSTEM,
    "developer": assistant_pb2.ROLE_SYSTEM,
    "user": assistant_pb2.ROLE_USER,
    "assistant": assistant_pb2.ROLE_ASSISTANT,
}
MODES = {
    frozenset({"text"}): common_pb2.OUTPUT_MODE_TEXT,
    frozenset({"image"}): common_pb2.OUTPUT_MODE_IMAGE,
    frozenset({"text", "image"}): common_pb2.OUTPUT_MODE_INTERLEAVED,
}
FORMATS = {
    "png": common_pb2.IMAGE_FORMAT_PNG,
    "jpeg": common_pb2.IMAGE_FORMAT_JPEG,
    "webp": common_pb2.IMAGE_FORMAT_WEBP,
}
PRIORITIES = {
    "routine": llm_pb2.PRIORITY_ROUTINE,
    "urgent": llm_pb2.PRIORITY_URGENT,
    "stat": llm_pb2.PRIORITY_STAT,
}


@dataclass
class Prepared:
    """A request of the contract made from a body, with what is still to be fetched for it."""

    request: assistant_pb2.GenerateRequest = field(default_factory=assistant_pb2.GenerateRequest)
    names: Names = field(default_factory=Names)
    fetches: list[media.Fetch] = field(default_factory=list)

    def set_common(self, body: Common) -> None:
        """Fields that the chat and the images dialect share; sampling fields by their own names."""
        request = self.request
        request.model, request.adapter = split_model(body.model or "")
        self.names.add("adapter", "model")
        request.visible_mark = bool(body.visible_mark)
        request.consent_training = bool(body.consent_training)
        if body.store is not None:
            request.store = body.store
        if body.retention_days is not None:
            request.retention_days = body.retention_days
        if body.priority is not None:
            request.priority = PRIORITIES[body.priority]
        for name in (*SAMPLING, "seed"):
            self.names.add(f"sampling.{name}", name)
            value = getattr(body, name, None)
            if value is not None:
                setattr(request.sampling, name, value)


@dataclass
class PreparedChat(Prepared):
    """
    Attributes:
        stream: answer with server-sent events.
        include_usage: end the stream with a chunk that has the usage.
        images: pictures of the conversation.
    """

    stream: bool = False
    include_usage: bool = False
    images: int = 0


def prepare(body: bytes, settings: Settings) -> PreparedChat:
    """Reads the body of a chat request. Takes time with large pictures: run it off the event loop.

    Raises:
        InvalidInput: names the field and the limit.
    """
    raw = parse_object(body)
    _drop_unsupported(raw)
    try:
        chat = ChatRequest.model_validate(raw)
    except ValidationError as error:
        raise invalid(error) from None
    prepared = PreparedChat()
    prepared.set_common(chat)
    _set_options(chat, prepared)
    for i, message in enumerate(chat.messages):
        _Turn(prepared, i, message, chat.window, settings).convert()
    return prepared


def _drop_unsupported(raw: dict[str, Any]) -> None:
    dialect.drop_neutral(raw, dialect.CHAT)
    messages = raw.get("messages")
    for i, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            if message.get("role") in ("tool", "function"):
                raise UnsupportedField("tools are not supported here", field=f"messages[{i}].role")
            dialect.drop_neutral(message, dialect.MESSAGE, f"messages[{i}].")
    if isinstance(raw.get("modalities"), list) and "audio" in raw["modalities"]:
        raise UnsupportedField("audio is not supported here; give text or image", field="modalities")


def _set_options(chat: ChatRequest, prepared: PreparedChat) -> None:
    request = prepared.request
    request.mode = MODES[frozenset(chat.modalities or ["text"])]
    prepared.stream = bool(chat.stream)
    prepared.include_usage = bool(chat.stream_options and chat.stream_options.include_usage)
    if chat.max_tokens and chat.max_completion_tokens and chat.max_tokens != chat.max_completion_tokens:
        raise InvalidInput("differs from max_completion_tokens; give one of them", field="max_tokens")
    if most := chat.max_completion_tokens or chat.max_tokens:
        request.max_new_tokens = most
    prepared.names.add(
        "max_new_tokens", "max_completion_tokens" if chat.max_completion_tokens else "max_tokens"
    )
    if chat.max_images is not None:
        request.max_images = chat.max_images
    if chat.stop is not None:
        request.stop.extend([chat.stop] if isinstance(chat.stop, str) else chat.stop)
        if isinstance(chat.stop, str):
            prepared.names.add("stop[0]", "stop")
    if chat.top_logprobs is not None and not chat.logprobs:
        raise InvalidInput("needs logprobs: true", field="top_logprobs")
    if chat.logprobs:
        request.top_logprobs = chat.top_logprobs or 0
    if chat.image_format is not None:
        request.image_format = FORMATS[chat.image_format]
    if chat.image_size is not None:
        request.image_size = chat.image_size


@dataclass
class _Turn:
    """One message on its way into the contract's form."""

    prepared: PreparedChat
    index: int
    source: ChatMessage
    window: Window | None
    settings: Settings

    def convert(self) -> None:
        self.message = self.prepared.request.messages.add(role=ROLES[self.source.role])
        name, source = f"messages[{self.index}]", self.source
        self.prepared.names.add(f"{name}.parts", f"{name}.content")
        if source.role != "assistant":
            for given in ("images", "parts"):
                if getattr(source, given):
                    raise UnsupportedField("is for assistant messages only", field=f"{name}.{given}")
        if source.parts:
            for j, part in enumerate(source.parts):
                if isinstance(part, ImageReference):
                    self._add_answer_image(part.index, f"{name}.parts[{j}].index")
                else:
                    self._add_text(part.text, f"{name}.parts[{j}].text")
            return
        if isinstance(source.content, str):
            self._add_text(source.content, f"{name}.content")
        for j, piece in enumerate(source.content if isinstance(source.content, list) else ()):
            if isinstance(piece, TextPart):
                self._add_text(piece.text, f"{name}.content[{j}].text")
            else:
                window = piece.image_url.window or (self.window if source.role == "user" else None)
                self._add_image(piece.image_url, f"{name}.content[{j}].image_url", window)
        for k in range(len(source.images or ())):
            self._add_answer_image(k, f"{name}.images[{k}]")

    def _add_text(self, text: str, received: str) -> None:
        self.prepared.names.add(f"{self._next()}.text", received)
        self.message.parts.add(text=text)

    def _add_answer_image(self, index: int, received: str) -> None:
        images = self.source.images or []
        if index >= len(images):
            raise InvalidInput(f"the message has {len(images)} images", field=received)
        self._add_image(images[index].image_url, f"messages[{self.index}].images[{index}].image_url", None)

    def _add_image(self, source: ImageUrl, received: str, window: Window | None) -> None:
        self.prepared.images += 1
        if self.prepared.images > MAX_INPUT_IMAGES:
            raise InvalidInput(f"at most {MAX_INPUT_IMAGES} pictures in a request", field=f"{received}.url")
        names, place = self.prepared.names, self._next()
        names.add(f"{place}.image", f"{received}.url")
        names.add(f"{place}.image.window", f"{received}.window" if source.window else "window")
        image = self.message.parts.add(image=assistant_pb2.ImagePart()).image
        if window is not None:
            image.window.center, image.window.width = window.center, window.width
        if media.is_data_url(source.url):
            image.data = media.decode_data_url(source.url, f"{received}.url", self.settings.max_image_bytes)
        else:
            media.check_address(source.url, f"{received}.url", self.settings)
            self.prepared.fetches.append(media.Fetch(source.url, image, f"{received}.url"))

    def _next(self) -> str:
        return f"messages[{self.index}].parts[{len(self.message.parts)}]"
