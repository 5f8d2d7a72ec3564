"""Answers of an assistant, gathered and shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from services.commands.assistants import Assistant
from services.errors import MedMaxError
from services.pb.medmax.v1 import assistant_pb2, common_pb2

SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}


@dataclass
class Answer:
    """Everything that came for one request.

    Attributes:
        parts: texts and pictures in their order; neighbouring texts are one.
    """

    parts: list[assistant_pb2.Part] = field(default_factory=list)
    finish: assistant_pb2.GenerateFinish = field(default_factory=assistant_pb2.GenerateFinish)

    def add(self, event: assistant_pb2.GenerateEvent) -> None:
        """Take in the next event."""
        kind = event.WhichOneof("event")
        if kind == "finish":
            self.finish = event.finish
        elif kind == "image":
            self.parts.append(assistant_pb2.Part(image=event.image))
        elif self.parts and self.parts[-1].WhichOneof("part") == "text":
            self.parts[-1].text += event.text.text
        else:
            self.parts.append(assistant_pb2.Part(text=event.text.text))

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if part.WhichOneof("part") == "text").strip()

    @property
    def images(self) -> list[assistant_pb2.ImagePart]:
        return [part.image for part in self.parts if part.WhichOneof("part") == "image"]

    def to_json(self) -> dict[str, Any]:
        """What is to be said of the answer beside its parts."""
        finish = self.finish
        confidence = finish.text_confidence
        if not confidence.tokens and self.images:
            confidence = self.images[0].confidence
        return {
            "confidence": probability(confidence),
            "confidence_details": confidence_json(confidence),
            "usage": usage_json(finish.usage),
            "model": finish.model.id,
            "model_digest": finish.model.digest,
            "interaction_id": finish.interaction_id or None,
            "finish_reason": common_pb2.FinishReason.Name(finish.reason)
            .removeprefix("FINISH_REASON_")
            .lower(),
            "latency_ms": round(finish.latency.total_ms, 3),
            "latency_details": {
                descriptor.name: round(getattr(finish.latency, descriptor.name), 3)
                for descriptor in finish.latency.DESCRIPTOR.fields
            },
        }


async def gather(
    assistant: Assistant,
    request: assistant_pb2.GenerateRequest,
    show: Callable[[assistant_pb2.GenerateEvent], None] = lambda event: None,
    names: Mapping[str, str] = MappingProxyType({}),
) -> Answer:
    """Ask and wait for the whole answer.

    Args:
        show: sees each event as it comes.
        names: beginnings of fields, as errors name them, to what the command calls them.
    """
    answer = Answer()
    try:
        async for event in assistant.generate(request):
            answer.add(event)
            show(event)
    except MedMaxError as error:
        for beginning, name in names.items():
            if error.field and error.field.startswith(beginning):
                error.field = name
                break
        raise
    return answer


def probability(confidence: common_pb2.Confidence) -> float | None:
    """Geometric mean of the chosen tokens' probabilities, 0 to 1; None where there were no tokens."""
    return math.exp(min(confidence.mean_logprob, 0.0)) if confidence.tokens else None


def confidence_json(confidence: common_pb2.Confidence) -> dict[str, float | int | None]:
    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "mean_logprob": finite(confidence.mean_logprob),
        "min_logprob": finite(confidence.min_logprob),
        "mean_entropy": finite(confidence.mean_entropy),
        "tokens": confidence.tokens,
    }


def usage_json(usage: common_pb2.Usage) -> dict[str, int]:
    counts = {descriptor.name: int(getattr(usage, descriptor.name)) for descriptor in usage.DESCRIPTOR.fields}
    return {**counts, "total_tokens": usage.prompt_tokens + usage.completion_tokens}


def picture_part(path: Path, window: tuple[float, float] | None = None) -> assistant_pb2.Part:
    """The picture file `path` as a part of a message."""
    image = assistant_pb2.ImagePart(data=path.read_bytes())
    if window is not None:
        image.window.center, image.window.width = window
    return assistant_pb2.Part(image=image)


def footer(answer: Answer, where: str) -> str:
    """One line for people: how sure, how long, where."""
    facts = []
    if (sure := answer.to_json()["confidence"]) is not None:
        facts.append(f"confidence {sure:.0%}")
    facts.append(f"{answer.finish.latency.total_ms / 1000:.2f} s")
    facts.append(f"{answer.finish.model.id} {where}")
    if answer.finish.interaction_id:
        facts.append(answer.finish.interaction_id)
    return " · ".join(facts)
