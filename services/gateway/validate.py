"""Checks of a `GenerateRequest` before any work is done for it. Every error names the field and the limit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from services.config import Settings
from services.errors import InvalidImage, InvalidInput, ModelNotFound, PayloadTooLarge
from services.gateway import limits
from services.pb.medmax.v1 import assistant_pb2, common_pb2, llm_pb2

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{0,64}")
_ROLES = {
    assistant_pb2.ROLE_SYSTEM: "system",
    assistant_pb2.ROLE_USER: "user",
    assistant_pb2.ROLE_ASSISTANT: "assistant",
}


def check_generate(request: assistant_pb2.GenerateRequest, settings: Settings) -> None:
    """Raises: InvalidInput and its kind, ModelNotFound."""
    check_context(request.context)
    check_model(request.model, settings)
    _check_options(request, settings)
    _check_sampling(request.sampling)
    _check_turns(request.messages)
    _check_content(request.messages, settings)


def check_context(context: common_pb2.RequestContext) -> None:
    """Raises: InvalidInput."""
    if not _REQUEST_ID.fullmatch(context.request_id):
        raise InvalidInput("at most 64 characters of A-Z a-z 0-9 . _ -", field="context.request_id")


def check_model(model: str, settings: Settings) -> None:
    """Raises: ModelNotFound."""
    if model and model != settings.model_id:
        raise ModelNotFound(f"no such model here; {settings.model_id} is served", field="model")


def pictures(
    messages: Sequence[assistant_pb2.Message],
) -> Iterator[tuple[str, assistant_pb2.ImagePart]]:
    """Every picture of a conversation in order, with the path of its part."""
    for i, message in enumerate(messages):
        for j, part in enumerate(message.parts):
            if part.WhichOneof("part") == "image":
                yield f"messages[{i}].parts[{j}]", part.image


def _check_options(request: assistant_pb2.GenerateRequest, settings: Settings) -> None:
    for field, enum in (
        ("mode", common_pb2.OutputMode),
        ("priority", llm_pb2.Priority),
        ("image_format", common_pb2.ImageFormat),
    ):
        if getattr(request, field) not in enum.values():
            raise InvalidInput(f"must be one of {', '.join(enum.keys())}", field=field)
    for field, low, high in (
        ("max_new_tokens", 1, limits.MAX_NEW_TOKENS),
        ("max_images", 0, limits.MAX_OUTPUT_IMAGES),
        ("top_logprobs", 0, limits.MAX_TOP_LOGPROBS),
        ("retention_days", 1, settings.retention_days),
        ("image_size", limits.IMAGE_SIZE.low, limits.IMAGE_SIZE.high),
    ):
        if request.HasField(field):  # type: ignore[arg-type]
            limits.Range(low, high).check(getattr(request, field), field)
    _check_max_images(request)
    if len(request.stop) > limits.MAX_STOP:
        raise InvalidInput(f"at most {limits.MAX_STOP} strings", field="stop")
    for i, text in enumerate(request.stop):
        if not 1 <= len(text) <= limits.MAX_STOP_CHARS:
            raise InvalidInput(f"must have 1 to {limits.MAX_STOP_CHARS} characters", field=f"stop[{i}]")
        _check_characters(text, f"stop[{i}]")


def _check_max_images(request: assistant_pb2.GenerateRequest) -> None:
    if not request.HasField("max_images"):
        return
    if request.mode == common_pb2.OUTPUT_MODE_IMAGE and request.max_images != 1:
        raise InvalidInput("must be 1 where the answer is one picture", field="max_images")
    if request.max_images and request.mode not in (
        common_pb2.OUTPUT_MODE_IMAGE,
        common_pb2.OUTPUT_MODE_INTERLEAVED,
    ):
        raise InvalidInput("must be 0 where the answer is text alone", field="max_images")


def _check_sampling(sampling: common_pb2.Sampling) -> None:
    for field, allowed in limits.SAMPLING.items():
        if sampling.HasField(field):  # type: ignore[arg-type]
            allowed.check(getattr(sampling, field), f"sampling.{field}")


def _check_turns(messages: Sequence[assistant_pb2.Message]) -> None:
    if not 1 <= len(messages) <= limits.MAX_MESSAGES:
        raise InvalidInput(f"must have 1 to {limits.MAX_MESSAGES} entries", field="messages")
    expected = assistant_pb2.ROLE_USER
    for i, message in enumerate(messages):
        field = f"messages[{i}].role"
        if message.role not in _ROLES:
            raise InvalidInput("must be system, user or assistant", field=field)
        if message.role == assistant_pb2.ROLE_SYSTEM:
            if any(earlier.role != assistant_pb2.ROLE_SYSTEM for earlier in messages[:i]):
                raise InvalidInput("system messages come before all others", field=field)
            continue
        if message.role != expected:
            raise InvalidInput(
                f"must be {_ROLES[expected]}: user and assistant alternate, user first", field=field
            )
        expected = (
            assistant_pb2.ROLE_ASSISTANT
            if message.role == assistant_pb2.ROLE_USER
            else assistant_pb2.ROLE_USER
        )
    if messages[-1].role != assistant_pb2.ROLE_USER:
        raise InvalidInput("the last message must be the user's", field=f"messages[{len(messages) - 1}].role")


def _check_content(messages: Sequence[assistant_pb2.Message], settings: Settings) -> None:
    chars = images = 0
    for i, message in enumerate(messages):
        if len(message.parts) > limits.MAX_PARTS:
            raise InvalidInput(f"at most {limits.MAX_PARTS} parts", field=f"messages[{i}].parts")
        said = False
        for j, part in enumerate(message.parts):
            field = f"messages[{i}].parts[{j}]"
            kind = part.WhichOneof("part")
            if kind is None:
                raise InvalidInput("must be text or an image", field=field)
            if kind == "text":
                chars += len(part.text)
                if chars > settings.max_text_chars:
                    raise PayloadTooLarge(
                        f"at most {settings.max_text_chars:,} characters over the whole request",
                        field=f"{field}.text",
                    )
                _check_characters(part.text, f"{field}.text")
                said = said or bool(part.text.strip())
                continue
            images += 1
            said = True
            if message.role == assistant_pb2.ROLE_SYSTEM:
                raise InvalidInput("system messages hold text alone", field=f"{field}.image")
            if images > limits.MAX_INPUT_IMAGES:
                raise InvalidInput(
                    f"at most {limits.MAX_INPUT_IMAGES} pictures in a request", field=f"{field}.image"
                )
            _check_image(part.image, f"{field}.image", settings)
        if not said:
            raise InvalidInput("is empty; give text or a picture", field=f"messages[{i}]")


def _check_image(image: assistant_pb2.ImagePart, field: str, settings: Settings) -> None:
    if not image.data:
        raise InvalidImage("is empty; give a picture file", field=field)
    if len(image.data) > settings.max_image_bytes:
        raise PayloadTooLarge(f"at most {settings.max_image_bytes:,} bytes", field=field)
    if image.HasField("window"):
        if not math.isfinite(image.window.center):
            raise InvalidInput("must be a finite number", field=f"{field}.window.center")
        if not (math.isfinite(image.window.width) and image.window.width > 0):
            raise InvalidInput("must be a finite number above 0", field=f"{field}.window.width")


def _check_characters(text: str, field: str) -> None:
    if "\0" in text:
        raise InvalidInput("must not hold the character U+0000", field=field)
