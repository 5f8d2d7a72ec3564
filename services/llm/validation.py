"""Checks of a request against the model, before anything is queued."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.checkpoint import GenerationDefaults, Vocabulary
from services.errors import ContextOverflow, InvalidInput, ModelNotFound
from services.llm.request import GenerationRequest, Job, OutputMode, Sampling, SamplingRequest

MAX_IMAGES, MAX_STOPS, MAX_STOP_CHARS, MAX_TOP_LOGPROBS, MAX_PREVIEW_CODES = 16, 4, 64, 20, 65535
NO_ADAPTER = "no such adapter is served here"
_DEFAULT_IMAGES = {OutputMode.TEXT: 0, OutputMode.IMAGE: 1, OutputMode.INTERLEAVED: 4}


@dataclass(frozen=True)
class Limits:
    """What of the model a request is checked against."""

    vocabulary: Vocabulary
    generation: GenerationDefaults
    context: int
    codes_per_image: int
    adapters: tuple[str, ...] = ()

    @property
    def span(self) -> int:
        """Tokens of a picture with its begin and end."""
        return self.codes_per_image + 2


def resolve(request: GenerationRequest, limits: Limits) -> Job:
    """The request with every default filled in.

    Raises:
        InvalidInput: a field is out of range; its name and the limit are in the message.
        ContextOverflow: the prompt, or the prompt with one picture in image mode, exceeds the context.
        ModelNotFound: there is no such adapter.
    """
    if request.adapter and request.adapter not in limits.adapters:
        raise ModelNotFound(NO_ADAPTER, field="adapter")
    prompt, images = _prompt(request, limits)
    length = len(prompt)
    sampling = _sampling(request.sampling, limits.generation)
    if request.max_new_tokens is not None and request.max_new_tokens < 1:
        raise InvalidInput("must be at least 1", field="max_new_tokens")
    limit = limits.context
    if request.max_new_tokens is not None:
        limit = min(limit, length + request.max_new_tokens)
    max_images = request.max_images
    if max_images is None:
        max_images = _DEFAULT_IMAGES[request.mode]
    elif not 0 <= max_images <= MAX_IMAGES:
        raise InvalidInput(f"must be from 0 to {MAX_IMAGES}", field="max_images")
    if request.mode is OutputMode.IMAGE:
        if max_images == 0:
            raise InvalidInput("must be at least 1 in image mode", field="max_images")
        if length + limits.span > limits.context:
            raise ContextOverflow(
                f"{length} tokens and a picture of {limits.span} exceed the context of {limits.context}",
                field="prompt_ids",
            )
        if length + limits.span > limit:
            raise InvalidInput(f"must be at least {limits.span}, one picture", field="max_new_tokens")
        max_images = 1
        prompt = np.append(prompt, limits.vocabulary.begin_image)
    elif request.mode is OutputMode.TEXT:
        max_images = 0
    _check_stops(request.stop)
    top = request.top_logprobs
    if top is not None and not 0 <= top <= MAX_TOP_LOGPROBS:
        raise InvalidInput(f"must be from 0 to {MAX_TOP_LOGPROBS}", field="top_logprobs")
    if not 0 <= request.preview_codes <= MAX_PREVIEW_CODES:
        raise InvalidInput(f"must be from 0 to {MAX_PREVIEW_CODES}", field="preview_codes")
    return Job(
        prompt=prompt,
        prompt_tokens=length,
        prompt_images=images,
        mode=request.mode,
        limit=limit,
        max_images=max_images,
        sampling=sampling,
        stop=request.stop,
        top_logprobs=top,
        priority=request.priority,
        deadline=request.deadline,
        caller=request.caller,
        preview_codes=request.preview_codes,
        adapter=limits.adapters.index(request.adapter) + 1 if request.adapter else 0,
    )


def _prompt(request: GenerationRequest, limits: Limits) -> tuple[NDArray[np.int64], int]:
    """The prompt as int64 [length] and the number of its pictures."""
    vocabulary, codes = limits.vocabulary, limits.codes_per_image
    if len(request.prompt_ids) > limits.context - 1:
        raise ContextOverflow(
            f"{len(request.prompt_ids)} tokens; the context of {limits.context} takes at most"
            f" {limits.context - 1} and one for the answer",
            field="prompt_ids",
        )
    if len(request.prompt_ids) == 0:
        raise InvalidInput("must hold at least 1 id", field="prompt_ids")
    prompt = np.array(request.prompt_ids, dtype=np.int64)
    outside = np.flatnonzero((prompt < 0) | (prompt >= vocabulary.size))
    if len(outside):
        raise InvalidInput(
            f"must be an id from 0 to {vocabulary.size - 1}", field=f"prompt_ids[{int(outside[0])}]"
        )
    begins = np.flatnonzero(prompt == vocabulary.begin_image)
    ends = np.flatnonzero(prompt == vocabulary.end_image)
    if request.any_pictures:
        return prompt, len(ends)
    shape = f"a picture is begin-of-image, exactly {codes} codes and end-of-image"
    if len(begins) != len(ends) or not np.array_equal(ends, begins + codes + 1):
        raise InvalidInput(shape, field="prompt_ids")
    is_code = vocabulary.id_to_code(prompt) >= 0
    inside = np.zeros(len(prompt), dtype=np.bool_)
    inside[(begins[:, None] + np.arange(1, codes + 1)).ravel()] = True
    misplaced = np.flatnonzero(is_code != inside)
    if len(misplaced):
        raise InvalidInput(shape, field=f"prompt_ids[{int(misplaced[0])}]")
    return prompt, len(begins)


def _sampling(asked: SamplingRequest, default: GenerationDefaults) -> Sampling:
    def number(name: str, low: float, high: float, *, above: bool = False) -> float:
        value: float | None = getattr(asked, name)
        if value is None:
            value = getattr(default, name)
        ranged = low < value <= high if above else low <= value <= high
        if not math.isfinite(value) or not ranged:
            first = f"above {low:g} and at most" if above else f"from {low:g} to"
            raise InvalidInput(f"must be {first} {high:g}", field=f"sampling.{name}")
        return value

    seed = asked.seed
    if seed is not None and not 0 <= seed < 1 << 64:
        raise InvalidInput("must be from 0 to 2^64 - 1", field="sampling.seed")
    return Sampling(
        temperature=number("temperature", 0, 2),
        top_p=number("top_p", 0, 1, above=True),
        top_k=int(number("top_k", 0, 65536)),
        repetition_penalty=number("repetition_penalty", 0.5, 5),
        image_temperature=number("image_temperature", 0, 2),
        image_top_p=number("image_top_p", 0, 1, above=True),
        guidance_text=number("guidance_text", 0, 20),
        guidance_image=number("guidance_image", 0, 20),
        seed=secrets.randbits(63) if seed is None else seed,
    )


def _check_stops(stops: tuple[str, ...]) -> None:
    if len(stops) > MAX_STOPS:
        raise InvalidInput(f"must hold at most {MAX_STOPS} strings", field="stop")
    for index, stop in enumerate(stops):
        if not 1 <= len(stop) <= MAX_STOP_CHARS:
            raise InvalidInput(f"must have 1 to {MAX_STOP_CHARS} characters", field=f"stop[{index}]")
