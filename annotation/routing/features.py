"""What is known of an answer that may tell how likely an expert is to refuse it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from annotation.agreement.text import normalised
from services.errors import InvalidInput
from services.pb.medmax.v1 import assistant_pb2, common_pb2

MAX_RESAMPLES = 32


@dataclass(frozen=True)
class Features:
    """
    Attributes:
        mean_logprob, min_logprob: of the answer's text tokens, natural, ≤ 0; None where there is no text.
        mean_entropy: of their distributions, in nats; None likewise.
        tokens: of text.
        picture_logprob: mean over the codes of the least likely generated picture, ≤ 0; None without pictures.
        characters: of the answer's text.
        truncated: the answer ended at a limit.
        mode: `text`, `image` or `interleaved`.
        agreement: share of resampled answers that agree with the answer, 0 to 1; None where none were drawn.
    """

    mean_logprob: float | None = None
    min_logprob: float | None = None
    mean_entropy: float | None = None
    tokens: int = 0
    picture_logprob: float | None = None
    characters: int = 0
    truncated: bool = False
    mode: str = "text"
    task: str = ""
    modality: str = ""
    agreement: float | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("mean_logprob", None, 0.0),
            ("min_logprob", None, 0.0),
            ("mean_entropy", 0.0, None),
            ("picture_logprob", None, 0.0),
            ("agreement", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if value is not None and not (
                isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
            ):
                bounds = f"{'-∞' if low is None else low:} to {'∞' if high is None else high:}"
                raise InvalidInput(f"must be finite, {bounds}", field=name)


def features(
    interaction: assistant_pb2.Interaction,
    *,
    task: str = "",
    modality: str = "",
    agreement: float | None = None,
) -> Features:
    """Of a stored interaction; `task` and `modality` as in `annotation.core.Item`.

    Raises:
        InvalidInput: a figure is out of range; the message names it.
    """
    text = interaction.text_confidence
    pictures = [
        part.image.confidence.mean_logprob
        for part in interaction.output
        if part.WhichOneof("part") == "image" and part.image.confidence.tokens
    ]
    return Features(
        mean_logprob=text.mean_logprob if text.tokens else None,
        min_logprob=text.min_logprob if text.tokens else None,
        mean_entropy=text.mean_entropy if text.tokens else None,
        tokens=text.tokens,
        picture_logprob=min(pictures, default=None),
        characters=sum(len(part.text) for part in interaction.output),
        truncated=interaction.reason == common_pb2.FINISH_REASON_LENGTH,
        mode=common_pb2.OutputMode.Name(interaction.mode).removeprefix("OUTPUT_MODE_").lower(),
        task=task,
        modality=modality,
        agreement=agreement,
    )


def content_digest(interaction: assistant_pb2.Interaction) -> str:
    """SHA-256, hex, of what was asked and answered: roles, texts after normalisation, pictures by their digest.

    Two interactions of one digest ask an expert the same. Settings, times and callers do not count.
    """
    found = hashlib.sha256()
    turns = [(message.role, message.parts) for message in interaction.prompt]
    for role, parts in (*turns, (assistant_pb2.ROLE_ASSISTANT, interaction.output)):
        found.update(b"turn%d" % role)
        for part in parts:
            image = part.WhichOneof("part") == "image"
            said = part.image.sha256 if image else normalised(part.text)
            data = said.encode("utf-8", "surrogatepass")
            found.update(b"%s%d:" % (b"image" if image else b"text", len(data)) + data)
    return found.hexdigest()


async def resampled_agreement(
    ask: Callable[[int], Awaitable[str]], answer: str, seeds: Sequence[int]
) -> float:
    """Share of answers to the same question that agree with `answer` after normalisation.

    Short answers are what this is for: reports in other words do not agree, which the calibrator has to learn.

    Args:
        ask: answers the question again with that seed, at a temperature above 0; called for all seeds at once.
        seeds: 1 to MAX_RESAMPLES different ones.

    Raises:
        InvalidInput: no seeds, too many, or one twice (it would count one answer twice).
        MedMaxError: what `ask` raises; the other calls are cancelled.
    """
    if not 1 <= len(seeds) <= MAX_RESAMPLES or len(set(seeds)) < len(seeds):
        raise InvalidInput(f"must be 1 to {MAX_RESAMPLES} different numbers", field="seeds")
    tasks = [asyncio.ensure_future(ask(seed)) for seed in seeds]
    try:
        answers = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    wanted = normalised(answer)
    return sum(normalised(other) == wanted for other in answers) / len(answers)
