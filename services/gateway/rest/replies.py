"""Bodies of REST replies, for the OpenAPI document. Replies are built as plain dicts in `render`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None = Field(description="path of the field that is wrong")
    code: str = Field(description="stable code of the error")


class ErrorReply(BaseModel):
    error: ErrorObject


class Confidence(BaseModel):
    """From the probabilities of the chosen tokens, at temperature 1."""

    mean_logprob: float
    min_logprob: float
    mean_entropy: float = Field(description="nats")
    tokens: int


class Latency(BaseModel):
    """Milliseconds, measured at the gateway."""

    tokenize_ms: float
    first_token_ms: float
    generate_ms: float
    decode_ms: float
    total_ms: float


class DataUrl(BaseModel):
    url: str | None = Field(description="data: URL; null where pictures were not asked for")


class Picture(BaseModel):
    """A picture of an answer."""

    type: Literal["image_url"]
    image_url: DataUrl
    index: int
    width: int
    height: int
    sha256: str
    synthetic: bool
    confidence: Confidence | None


class Message(BaseModel):
    role: Literal["assistant"]
    content: str | None = Field(description="the answer's text, pictures left out")
    refusal: None = None
    images: list[Picture] = Field(default=[], description="where `modalities` has image")
    parts: list[dict[str, Any]] = Field(
        default=[],
        description='where `modalities` has image: the order, `{"type":"text","text"}` and `{"type":"image","index"}`',
    )


class Choice(BaseModel):
    index: int
    message: Message
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class PromptDetails(BaseModel):
    cached_tokens: int
    image_tokens: int
    text_tokens: int


class CompletionDetails(BaseModel):
    image_tokens: int
    text_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    images: int
    seed: int = Field(description="the seed in force")


class ChatReply(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str = Field(description="SHA-256 of the weights that answered")
    choices: list[Choice]
    usage: Usage
    interaction_id: str | None = Field(description="null where nothing was stored")
    confidence: Confidence | None = Field(description="of the text")
    latency: Latency


class ImageData(BaseModel):
    b64_json: str
    interaction_id: str | None
    seed: int
    width: int
    height: int
    sha256: str
    synthetic: bool
    confidence: Confidence | None


class TokenDetails(BaseModel):
    image_tokens: int
    text_tokens: int


class ImagesUsage(BaseModel):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: TokenDetails
    output_tokens_details: TokenDetails


class ImagesReply(BaseModel):
    created: int
    model: str
    system_fingerprint: str
    background: Literal["opaque"]
    output_format: Literal["png", "jpeg", "webp"]
    size: str
    data: list[ImageData]
    usage: ImagesUsage


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


class FeedbackReply(BaseModel):
    id: str
    object: Literal["feedback"]
    interaction_id: str


class StatusReply(BaseModel):
    status: str


class Interaction(BaseModel):
    id: str
    object: Literal["interaction"]
    created_at: str = Field(description="RFC 3339")
    expires_at: str
    caller: str
    model: str
    system_fingerprint: str
    modalities: list[Literal["text", "image"]]
    messages: list[dict[str, Any]]
    output: list[dict[str, Any]]
    sampling: dict[str, float | int]
    finish_reason: Literal["stop", "length"]
    usage: Usage
    confidence: Confidence | None
    latency: Latency
    consent_training: bool
    feedback: list[dict[str, Any]]
