"""Bodies of REST requests. Unknown fields are refused; the limits appear in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from services.gateway import limits

PRIORITIES = ("routine", "urgent", "stat")
Temperature = Annotated[float, Field(**limits.TEMPERATURE.schema)]
Nucleus = Annotated[float, Field(**limits.NUCLEUS.schema)]
Guidance = Annotated[float, Field(**limits.GUIDANCE.schema)]
Short = Annotated[str, Field(max_length=512)]
Stop = Annotated[str, Field(min_length=1, max_length=limits.MAX_STOP_CHARS)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Window(Strict):
    """DICOM display window in modality units after rescale (Hounsfield for CT)."""

    center: float
    width: Annotated[float, Field(gt=0)]


class ImageUrl(Strict):
    url: str = Field(
        description="`data:<type>;base64,<data>` with a PNG, JPEG, WebP, TIFF, BMP or single-frame DICOM file; an "
        "http(s) address only where the installation allows its host",
        json_schema_extra={"examples": ["data:image/png;base64,iVBORw0KGgo="]},
    )
    detail: Literal["auto", "low", "high", "original"] | None = Field(
        None, description="accepted; the model sees every picture in the same detail"
    )
    window: Window | None = Field(None, description="in place of the request's `window`")


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ImageUrlPart(Strict):
    type: Literal["image_url"]
    image_url: ImageUrl


class AnswerImage(BaseModel):
    """A picture of an earlier answer, as it was received; what else came with it is not read."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["image_url"]
    image_url: ImageUrl


class ImageReference(Strict):
    """A place in the order of an answer's parts: picture `index` of its `images`."""

    type: Literal["image"]
    index: Annotated[int, Field(ge=0, lt=limits.MAX_INPUT_IMAGES)]


def _type_tag(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"<{kind}>"


def _list_tag(value: Any) -> str:
    return "<list>" if isinstance(value, list) else "<one>"


ContentPart = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[ImageUrlPart, Tag("<image_url>")],
    Discriminator(
        _type_tag,
        custom_error_type="part_type",
        custom_error_message="must be an object of type text or image_url",
    ),
]
AnswerPart = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[ImageReference, Tag("<image>")],
    Discriminator(
        _type_tag,
        custom_error_type="part_type",
        custom_error_message="must be an object of type text or image",
    ),
]
Content = Annotated[
    Annotated[str, Tag("<one>")]
    | Annotated[list[ContentPart], Field(max_length=limits.MAX_PARTS), Tag("<list>")],
    Discriminator(_list_tag),
]


class ChatMessage(Strict):
    """One turn. System (or developer) messages come first, then user and assistant in turn, a user's last."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content | None = None
    name: Annotated[str, Field(max_length=64)] | None = Field(None, description="accepted, not read")
    images: Annotated[list[AnswerImage], Field(max_length=limits.MAX_INPUT_IMAGES)] | None = Field(
        None, description="assistant messages only: the answer's pictures, as they were received"
    )
    parts: Annotated[list[AnswerPart], Field(max_length=limits.MAX_PARTS)] | None = Field(
        None,
        description="assistant messages only: the order of text and pictures, as it was received; `content` is then "
        "not read",
    )


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="accepted, not read")


class Common(Strict):
    """Fields of every request that generates."""

    model: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="one that `GET /v1/models` lists; none: the served model"
    )
    seed: Annotated[int, Field(ge=0, le=limits.MAX_SEED)] | None = None
    image_temperature: Temperature | None = None
    image_top_p: Nucleus | None = None
    guidance_text: Guidance | None = Field(None, description="classifier-free guidance on the text; 1 = none")
    visible_mark: bool | None = Field(None, description='draw "SYNTHETIC" onto generated pictures')
    store: bool | None = Field(None, description="keep the interaction; none: the installation's setting")
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = Field(
        None, description="days to keep it, at most the installation's"
    )
    consent_training: bool | None = Field(
        None, description="the patient's or institution's consent allows use as instruction data"
    )
    priority: Literal["routine", "urgent", "stat"] | None = None
    user: Short | None = Field(None, description="accepted, not read; nor are the next five")
    safety_identifier: Short | None = None
    prompt_cache_key: Short | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None


class ChatRequest(Common):
    """OpenAI's chat completion request, and this service's own fields."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=limits.MAX_MESSAGES)]
    modalities: Annotated[list[Literal["text", "image"]], Field(min_length=1, max_length=2)] | None = Field(
        None,
        description='`["text"]` (default), `["text","image"]` for text and pictures in any order, `["image"]` for one '
        "picture",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=limits.MAX_NEW_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=limits.MAX_NEW_TOKENS)] | None = Field(
        None, description="text tokens and image codes together; none: what the context leaves"
    )
    max_images: Annotated[int, Field(ge=0, le=limits.MAX_OUTPUT_IMAGES)] | None = None
    temperature: Temperature | None = Field(None, description="0 = greedy")
    top_p: Nucleus | None = None
    top_k: Annotated[int, Field(ge=0, le=65_536)] | None = Field(None, description="0 = all")
    repetition_penalty: Annotated[float, Field(**limits.SAMPLING["repetition_penalty"].schema)] | None = None
    guidance_image: Guidance | None = Field(
        None, description="classifier-free guidance on the prompt's pictures; 1 = none"
    )
    stop: (
        Annotated[
            Annotated[Stop, Tag("<one>")]
            | Annotated[list[Stop], Field(max_length=limits.MAX_STOP), Tag("<list>")],
            Discriminator(_list_tag),
        ]
        | None
    ) = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=limits.MAX_TOP_LOGPROBS)] | None = None
    image_format: Literal["png", "jpeg", "webp"] | None = None
    image_size: Annotated[int, Field(ge=16, le=2048)] | None = Field(
        None, description="edge of generated pictures in pixels; none: the model's own"
    )
    window: Window | None = Field(None, description="for DICOM and 16-bit pictures, in place of their own")
    parallel_tool_calls: bool | None = Field(None, description="accepted, not read")


class ImagesRequest(Common):
    """OpenAI's image generation request, and this service's own fields."""

    prompt: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=4)] | None = Field(
        None, description="pictures; each has its own interaction"
    )
    size: Annotated[str, Field(pattern=r"^(auto|\d{1,4}x\d{1,4})$")] | None = Field(
        None,
        description="`auto` (the model's own) or a square, 16x16 to 2048x2048",
        examples=["auto", "256x256"],
    )
    output_format: Literal["png", "jpeg", "webp"] | None = None


class FeedbackRequest(Strict):
    """A judgement of a stored answer; at least one of rating, flag, comment and corrected_text."""

    interaction_id: Annotated[str, Field(max_length=64)]
    rating: Annotated[int, Field(ge=1, le=5)] | None = Field(None, description="1 (bad) to 5 (good)")
    flag: bool | None = Field(None, description="ask for an expert's review")
    comment: Annotated[str, Field(max_length=4_000)] | None = None
    corrected_text: Annotated[str, Field(max_length=16_000)] | None = Field(
        None, description="what the answer should have been"
    )
