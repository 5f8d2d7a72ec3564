from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.checkpoint import Checkpoint
from services.errors import ContextOverflow, InvalidInput
from services.llm.request import GenerationRequest, Job, OutputMode, SamplingRequest
from services.llm.validation import Limits, resolve
from tests.support.tiny import CODES_PER_IMAGE

TEXT, IMAGE, BOTH = OutputMode.TEXT, OutputMode.IMAGE, OutputMode.INTERLEAVED


@pytest.fixture(scope="module")
def limits(checkpoint: Checkpoint) -> Limits:
    return Limits(checkpoint.vocabulary, checkpoint.generation, checkpoint.config.context, CODES_PER_IMAGE)


def ask(limits: Limits, **fields: object) -> Job:
    return resolve(GenerationRequest(**{"prompt_ids": [0, 50], **fields}), limits)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *[(name, x) for name in ("temperature", "image_temperature") for x in (-0.1, 2.1)],
        *[(name, x) for name in ("top_p", "image_top_p") for x in (0.0, -1.0, 1.01)],
        *[("repetition_penalty", x) for x in (0.0, 0.49, 5.1)],
        *[(name, x) for name in ("guidance_text", "guidance_image") for x in (-1.0, 20.5)],
        *[("top_k", x) for x in (-1, 65537)],
        *[("seed", x) for x in (-1, 1 << 64)],
        *[
            (name, x)
            for name in ("temperature", "top_p", "repetition_penalty", "image_temperature", "guidance_text")
            for x in (math.nan, math.inf, -math.inf, 1e300)
        ],
    ],
)
def test_a_sampling_value_out_of_range_is_refused_by_name(limits: Limits, name: str, bad: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(limits, sampling=SamplingRequest(**{name: bad}))
    assert caught.value.field == f"sampling.{name}"
    assert "must be" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": CODES_PER_IMAGE + 1, "mode": IMAGE}, "max_new_tokens"),
        ({"max_images": 17, "mode": BOTH}, "max_images"),
        ({"max_images": 0, "mode": IMAGE}, "max_images"),
        ({"stop": ("a",) * 5}, "stop"),
        ({"stop": ("a", "")}, "stop[1]"),
        ({"stop": ("a" * 65,)}, "stop[0]"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"prompt_ids": []}, "prompt_ids"),
        ({"prompt_ids": [0, 300]}, "prompt_ids[1]"),
        ({"prompt_ids": [0, -1]}, "prompt_ids[1]"),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(
    limits: Limits, fields: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(limits, **fields)
    assert caught.value.field == field


def test_a_prompt_fits_up_to_the_context_less_one(limits: Limits) -> None:
    assert ask(limits, prompt_ids=[50] * 127).limit == 128
    with pytest.raises(ContextOverflow) as caught:
        ask(limits, prompt_ids=[50] * 128)
    assert caught.value.field == "prompt_ids"
    assert "128" in caught.value.message


def test_image_mode_needs_room_for_one_picture(limits: Limits) -> None:
    room = 128 - CODES_PER_IMAGE - 2
    assert ask(limits, prompt_ids=[50] * room, mode=IMAGE).max_images == 1
    with pytest.raises(ContextOverflow, match="context of 128"):
        ask(limits, prompt_ids=[50] * (room + 1), mode=IMAGE)


def test_pictures_in_the_prompt_are_counted_and_may_stand_anywhere(limits: Limits) -> None:
    span = limits.vocabulary.image_span(range(CODES_PER_IMAGE))
    assert ask(limits, prompt_ids=[0, *span, 50, *span, *span]).prompt_images == 3
    assert ask(limits, prompt_ids=span).prompt_images == 1


@given(at=st.integers(0, 19), change=st.sampled_from(["drop", "code", "begin", "end", "text"]))
@settings(max_examples=50, deadline=None)
def test_a_damaged_picture_span_is_refused(limits: Limits, at: int, change: str) -> None:
    v = limits.vocabulary
    span = [v.bos, *v.image_span(range(CODES_PER_IMAGE)), 50]
    new = {"code": v.code_ids[0], "begin": v.begin_image, "end": v.end_image, "text": 60}
    damaged = [*span[:at], *([] if change == "drop" else [int(new[change])]), *span[at + 1 :]]
    inside = 0 < at < 19
    harmless = damaged == span or (
        (change in {"text", "drop"} and not inside) or (change == "code" and 1 < at < 18)
    )
    if harmless:
        ask(limits, prompt_ids=damaged)
        return
    with pytest.raises(InvalidInput, match="begin-of-image") as caught:
        ask(limits, prompt_ids=damaged)
    assert caught.value.field is not None
    assert caught.value.field.startswith("prompt_ids")


def test_what_is_unset_takes_the_checkpoints_default(limits: Limits) -> None:
    own = replace(limits, generation=replace(limits.generation, temperature=0.25, guidance_text=2.5))
    sampling = ask(own, sampling=SamplingRequest(top_p=0.5)).sampling
    assert (sampling.temperature, sampling.guidance_text, sampling.top_p) == (0.25, 2.5, 0.5)
    assert ask(limits, mode=BOTH).max_images == 4
    assert ask(limits, mode=TEXT, max_images=3).max_images == 0


def test_a_request_without_a_seed_gets_a_fresh_one(limits: Limits) -> None:
    assert ask(limits).sampling.seed != ask(limits).sampling.seed
