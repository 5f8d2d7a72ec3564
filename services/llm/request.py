"""What a caller asks of the engine, in natural Python types; `None` means the model's own default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum

import numpy as np
from numpy.typing import NDArray

from services.deadline import Deadline


class OutputMode(Enum):
    """What may be in an answer."""

    TEXT = "text"
    IMAGE = "image"
    INTERLEAVED = "interleaved"


class Priority(IntEnum):
    """Order of service under load; higher goes first."""

    ROUTINE = 0
    URGENT = 1
    STAT = 2


@dataclass(frozen=True)
class SamplingRequest:
    """How tokens are drawn, as far as the caller says; limits are those of `medmax.v1.Sampling`."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    image_temperature: float | None = None
    image_top_p: float | None = None
    guidance_text: float | None = None
    guidance_image: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """One answer to one prompt; the fields' limits are those of `medmax.v1.LanguageModelGenerateRequest`.

    `caller` is who asks, for fair shares; `preview_codes` asks for a `Preview` each time so many codes more are drawn;
    `any_pictures` admits pictures of any number of codes in the prompt, for checks of a model by hand; `adapter` names
    one of the engine's, empty = none.
    """

    prompt_ids: Sequence[int] | NDArray[np.int64]
    mode: OutputMode = OutputMode.TEXT
    max_new_tokens: int | None = None
    max_images: int | None = None
    sampling: SamplingRequest = field(default_factory=SamplingRequest)
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    priority: Priority = Priority.ROUTINE
    deadline: Deadline | None = None
    any_pictures: bool = False
    caller: str = ""
    preview_codes: int = 0
    adapter: str = ""


@dataclass(frozen=True)
class Sampling:
    """`SamplingRequest` with every default filled in."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    image_temperature: float
    image_top_p: float
    guidance_text: float
    guidance_image: float
    seed: int


@dataclass(frozen=True)
class Job:
    """A checked request with every default filled in.

    Attributes:
        prompt: int64 [length]; in image mode it ends in begin-of-image, which the caller did not send.
        prompt_tokens: length of the caller's prompt.
        limit: largest total of prompt and answer, in tokens.
        max_images: pictures that the answer may hold; 0 in text mode.
        prompt_images: pictures in the prompt.
        adapter: which of the engine's, from 1; 0 = none.
    """

    prompt: NDArray[np.int64]
    prompt_tokens: int
    prompt_images: int
    mode: OutputMode
    limit: int
    max_images: int
    sampling: Sampling
    stop: tuple[str, ...]
    top_logprobs: int | None
    priority: Priority
    deadline: Deadline | None
    caller: str = ""
    preview_codes: int = 0
    adapter: int = 0
