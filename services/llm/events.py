"""What the engine answers: pieces of text, pictures, and one `Finish`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias


class FinishReason(Enum):
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Confidence:
    """How sure the model was of its tokens: natural logarithms and nats, at temperature 1, before truncation."""

    mean_logprob: float = 0.0
    min_logprob: float = 0.0
    mean_entropy: float = 0.0
    tokens: int = 0


@dataclass(frozen=True)
class TokenLogprob:
    token_id: int
    token: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Text:
    """A piece of text, whole characters only; `logprobs` is empty unless the request asked for them."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()

    def __add__(self, other: Text) -> Text:
        return Text(self.text + other.text, self.token_ids + other.token_ids, self.logprobs + other.logprobs)


@dataclass(frozen=True)
class Picture:
    """A complete picture: codebook indices, row-major; times in milliseconds from the request's arrival."""

    codes: tuple[int, ...]
    confidence: Confidence
    begun_ms: float = field(default=0.0, compare=False)
    finished_ms: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Preview:
    """A picture that is being drawn: the codebook indices so far, row-major."""

    codes: tuple[int, ...]


@dataclass(frozen=True)
class Usage:
    """Tokens of the model; pictures count with their begin and end."""

    prompt_tokens: int
    completion_tokens: int
    prompt_image_tokens: int
    completion_image_tokens: int
    images: int
    cached_tokens: int
    seed: int


@dataclass(frozen=True)
class Finish:
    """The end of an answer; times in milliseconds from the request's arrival.

    `end_id` is the token with which the model ended its text, if it did.
    """

    reason: FinishReason
    usage: Usage
    text_confidence: Confidence
    queue_ms: float
    first_token_ms: float
    end_id: int | None = None


Event: TypeAlias = Text | Picture | Preview | Finish


@dataclass(frozen=True)
class Answer:
    """A whole answer: its parts in order, and how it ended."""

    parts: tuple[Text | Picture, ...]
    finish: Finish

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Ids of the text tokens."""
        return tuple(i for part in self.parts if isinstance(part, Text) for i in part.token_ids)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return tuple(part for part in self.parts if isinstance(part, Picture))
