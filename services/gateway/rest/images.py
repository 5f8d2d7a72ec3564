"""OpenAI's image generation dialect."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from services.errors import InvalidInput
from services.gateway.assistant import Assistant
from services.gateway.limits import IMAGE_SIZE, MAX_SEED
from services.gateway.rest import dialect, render
from services.gateway.rest.body import parse_object
from services.gateway.rest.chat import FORMATS, Prepared
from services.gateway.rest.errors import invalid
from services.gateway.rest.schemas import ImagesRequest
from services.gateway.tasks import all_or_none
from services.pb.medmax.v1 import assistant_pb2, common_pb2


@dataclass
class PreparedImages(Prepared):
    """
    Attributes:
        count: pictures to draw.
        output_format: `png`, `jpeg` or `webp`.
    """

    count: int = 1
    output_format: str = "png"

    def requests(self) -> list[assistant_pb2.GenerateRequest]:
        """One per picture; a given seed is counted up from the first."""
        requests = []
        for i in range(self.count):
            request = assistant_pb2.GenerateRequest()
            request.CopyFrom(self.request)
            if request.sampling.HasField("seed"):
                request.sampling.seed = (request.sampling.seed + i) & MAX_SEED
            requests.append(request)
        return requests


def prepare(body: bytes) -> PreparedImages:
    """Reads the body of an images request.

    Raises:
        InvalidInput: names the field and the limit.
    """
    raw = parse_object(body)
    dialect.drop_neutral(raw, dialect.IMAGES)
    try:
        asked = ImagesRequest.model_validate(raw)
    except ValidationError as error:
        raise invalid(error) from None
    prepared = PreparedImages(count=asked.n or 1, output_format=asked.output_format or "png")
    prepared.set_common(asked)
    request = prepared.request
    request.mode = common_pb2.OUTPUT_MODE_IMAGE
    request.image_format = FORMATS[prepared.output_format]
    request.messages.add(role=assistant_pb2.ROLE_USER).parts.add(text=asked.prompt)
    prepared.names.add("messages", "prompt")
    prepared.names.add("messages[0].parts[0].text", "prompt")
    prepared.names.add("messages[0]", "prompt")
    prepared.names.add("image_size", "size")
    prepared.names.add("image_format", "output_format")
    if asked.size not in (None, "auto"):
        request.image_size = _edge(str(asked.size))
    return prepared


def _edge(size: str) -> int:
    width, height = (int(number) for number in size.split("x"))
    if width != height:
        raise InvalidInput("pictures are square; give the same width and height, or auto", field="size")
    if not IMAGE_SIZE.low <= width <= IMAGE_SIZE.high:
        raise InvalidInput("must be from 16x16 to 2048x2048, or auto", field="size")
    return width


async def draw(assistant: Assistant, prepared: PreparedImages, caller: str) -> dict[str, Any]:
    """The pictures, drawn side by side, as OpenAI's reply. One that fails fails them all."""
    begun = int(time.time())
    drawn = await all_or_none(_draw_one(assistant, request, caller) for request in prepared.requests())
    first = drawn[0]
    return {
        "created": begun,
        "model": first.finish.model.id,
        "system_fingerprint": first.finish.model.digest,
        "background": "opaque",
        "output_format": prepared.output_format,
        "size": f"{first.image.width}x{first.image.height}",
        "data": [picture.data for picture in drawn],
        "usage": _usage([picture.finish.usage for picture in drawn]),
    }


@dataclass
class _Drawn:
    image: assistant_pb2.ImagePart
    finish: assistant_pb2.GenerateFinish

    @property
    def data(self) -> dict[str, Any]:
        return {
            "b64_json": base64.b64encode(self.image.data).decode(),
            "interaction_id": self.finish.interaction_id or None,
            "seed": self.finish.usage.seed,
            "width": self.image.width,
            "height": self.image.height,
            "sha256": self.image.sha256,
            "synthetic": self.image.synthetic,
            "confidence": render.confidence(self.image.confidence),
        }


async def _draw_one(assistant: Assistant, request: assistant_pb2.GenerateRequest, caller: str) -> _Drawn:
    drawn = _Drawn(assistant_pb2.ImagePart(), assistant_pb2.GenerateFinish())
    async with aclosing(cast(Any, assistant.generate(request, caller))) as events:
        async for event in events:
            if event.WhichOneof("event") == "image":
                drawn.image = event.image
            elif event.WhichOneof("event") == "finish":
                drawn.finish = event.finish
    return drawn


def _usage(each: Sequence[common_pb2.Usage]) -> dict[str, Any]:
    read, written = sum(u.prompt_tokens for u in each), sum(u.completion_tokens for u in each)
    drawn = sum(u.completion_image_tokens for u in each)
    return {
        "input_tokens": read,
        "output_tokens": written,
        "total_tokens": read + written,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": read},
        "output_tokens_details": {"image_tokens": drawn, "text_tokens": written - drawn},
    }
