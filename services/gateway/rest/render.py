"""The contract's messages as OpenAI's JSON objects."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from services.pb.medmax.v1 import assistant_pb2, common_pb2, llm_pb2

LEAST_LOGPROB = -9999.0  # OpenAI's figure for a token that could not be chosen

REASONS = {common_pb2.FINISH_REASON_STOP: "stop", common_pb2.FINISH_REASON_LENGTH: "length"}
ROLES = {
    assistant_pb2.ROLE_SYSTEM: "system",
    assistant_pb2.ROLE_USER: "user",
    assistant_pb2.ROLE_ASSISTANT: "assistant",
}
MODALITIES = {
    common_pb2.OUTPUT_MODE_IMAGE: ["image"],
    common_pb2.OUTPUT_MODE_INTERLEAVED: ["text", "image"],
}


def data_url(image: assistant_pb2.ImagePart) -> str:
    return f"data:{image.mime_type};base64,{base64.b64encode(image.data).decode()}"


def confidence(value: common_pb2.Confidence) -> dict[str, Any] | None:
    """None where there was no token to be sure of."""
    if not value.tokens:
        return None
    return {
        "mean_logprob": max(value.mean_logprob, LEAST_LOGPROB),
        "min_logprob": max(value.min_logprob, LEAST_LOGPROB),
        "mean_entropy": value.mean_entropy,
        "tokens": value.tokens,
    }


def latency(value: assistant_pb2.Latency) -> dict[str, float]:
    return {field.name: round(getattr(value, field.name), 3) for field in value.DESCRIPTOR.fields}


def usage(value: common_pb2.Usage) -> dict[str, Any]:
    """OpenAI's usage, with the number of pictures and the seed."""
    return {
        "prompt_tokens": value.prompt_tokens,
        "completion_tokens": value.completion_tokens,
        "total_tokens": value.prompt_tokens + value.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": value.cached_tokens,
            "image_tokens": value.prompt_image_tokens,
            "text_tokens": value.prompt_tokens - value.prompt_image_tokens,
        },
        "completion_tokens_details": {
            "image_tokens": value.completion_image_tokens,
            "text_tokens": value.completion_tokens - value.completion_image_tokens,
        },
        "images": value.images,
        "seed": value.seed,
    }


def picture(image: assistant_pb2.ImagePart, index: int) -> dict[str, Any]:
    """A picture of an answer."""
    return {
        "type": "image_url",
        "image_url": {"url": data_url(image)},
        "index": index,
        "width": image.width,
        "height": image.height,
        "sha256": image.sha256,
        "synthetic": image.synthetic,
        "confidence": confidence(image.confidence),
    }


def logprobs(tokens: Iterable[llm_pb2.TokenLogprob]) -> list[dict[str, Any]]:
    """OpenAI's `logprobs.content`."""
    return [{**_logprob(token), "top_logprobs": [_logprob(other) for other in token.top]} for token in tokens]


def _logprob(token: llm_pb2.TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.token,
        "logprob": max(token.logprob, LEAST_LOGPROB),
        "bytes": list(token.token.encode()),
    }


def interaction(value: assistant_pb2.Interaction) -> dict[str, Any]:
    """A stored interaction; pictures without bytes have no URL."""
    return {
        "id": value.id,
        "object": "interaction",
        "created_at": value.created_at.ToJsonString(),
        "expires_at": value.expires_at.ToJsonString(),
        "caller": value.caller,
        "model": value.model.id,
        "system_fingerprint": value.model.digest,
        "modalities": MODALITIES.get(value.mode, ["text"]),
        "messages": [
            {"role": ROLES[message.role], "content": [_part(part) for part in message.parts]}
            for message in value.prompt
        ],
        "output": [_part(part) for part in value.output],
        "sampling": {field.name: number for field, number in value.sampling.ListFields()},
        "finish_reason": REASONS.get(value.reason, "stop"),
        "usage": usage(value.usage),
        "confidence": confidence(value.text_confidence),
        "latency": latency(value.latency),
        "consent_training": value.consent_training,
        "feedback": [_feedback(entry) for entry in value.feedback],
    }


def _part(part: assistant_pb2.Part) -> dict[str, Any]:
    if part.WhichOneof("part") == "text":
        return {"type": "text", "text": part.text}
    image = part.image
    shown: dict[str, Any] = {
        "type": "image_url",
        "image_url": {"url": data_url(image) if image.data else None},
        "mime_type": image.mime_type,
        "width": image.width,
        "height": image.height,
        "sha256": image.sha256,
        "synthetic": image.synthetic,
        "confidence": confidence(image.confidence),
    }
    if image.HasField("window"):
        shown["window"] = {"center": image.window.center, "width": image.window.width}
    return shown


def _feedback(entry: assistant_pb2.Feedback) -> dict[str, Any]:
    return {
        "id": entry.id,
        "created_at": entry.created_at.ToJsonString(),
        "caller": entry.caller,
        "rating": entry.rating if entry.HasField("rating") else None,
        "flag": entry.flag,
        "comment": entry.comment,
        "corrected_text": entry.corrected_text,
    }
