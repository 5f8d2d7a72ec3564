"""Our services on the golden checkpoints, read in every layout, against the reference's recorded answers."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from services.checkpoint import Checkpoint, Layout, open_checkpoint
from services.checkpoint.convert import convert
from services.config import DType, Settings
from services.decoder.decoder import ImageDecoder
from services.llm.engine import Engine
from services.llm.events import Answer
from services.llm.load import load_model
from services.llm.request import GenerationRequest, OutputMode, Sampling, SamplingRequest
from services.llm.sampler import Draw, sample
from services.llm.sequence import companion_prompts, guidance_weights
from services.tokenizer.tokenizer import ImageTokenizer
from tests.support.golden import NAMES, Golden


@pytest.fixture(scope="module", params=NAMES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


@pytest.fixture(scope="module", params=list(Layout))
def directory(
    request: pytest.FixtureRequest, golden: Golden, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    if request.param is Layout.META:
        return golden.checkpoint
    path = tmp_path_factory.mktemp(golden.name) / str(request.param)
    convert(open_checkpoint(golden.checkpoint), path, request.param)
    return path


def settings(directory: Path) -> Settings:
    return Settings(checkpoint=directory, dtype=DType.FLOAT32, threads=1, max_batch=6)


def test_image_codes_are_equal_on_every_picture(golden: Golden, directory: Path) -> None:
    async def codes() -> list[list[int]]:
        tokenizer = ImageTokenizer.load(settings(directory))
        try:
            files = [golden.folder / image["file"] for image in golden.expected["images"]]
            return [(await tokenizer.tokenize(file.read_bytes())).codes.tolist() for file in files]
        finally:
            await tokenizer.close()

    for image, found in zip(golden.expected["images"], asyncio.run(codes()), strict=True):
        assert found == image["tokens"], image["file"]


def test_a_decoded_picture_differs_by_one_level_at_most(golden: Golden, directory: Path) -> None:
    async def picture() -> bytes:
        decoder = ImageDecoder.load(settings(directory))
        try:
            return (await decoder.decode(np.array(golden.expected["decode"]["tokens"], np.int64))).data
        finally:
            await decoder.close()

    found = np.asarray(Image.open(io.BytesIO(asyncio.run(picture()))).convert("RGB"), np.int16)
    wanted = Image.open(golden.folder / golden.expected["decode"]["file"]).convert("RGB")
    assert np.abs(found - np.asarray(wanted, np.int16)).max() <= 1


def test_logits_are_equal_at_every_position(golden: Golden, directory: Path) -> None:
    model = load_model(open_checkpoint(directory))
    for prompt in ("text", "mixed"):
        with torch.inference_mode():
            found = model(torch.tensor([golden.expected[prompt]["ids"]]))[0].numpy()
        wanted = golden.arrays[f"{prompt}_logits"]
        assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 1e-5  # the issue allows 1e-4


def test_text_has_the_reference_s_ids(golden: Golden, directory: Path) -> None:
    vocabulary = open_checkpoint(directory).vocabulary
    text = golden.expected["text"]["text"].removesuffix("<reserved08706>")
    ids = [vocabulary.bos, *vocabulary.encode(text), vocabulary.end_of_turn]
    assert ids == golden.expected["text"]["ids"]


def greedy(golden: Golden) -> tuple[list[GenerationRequest], list[GenerationRequest]]:
    """The recorded greedy requests: texts and guided pictures."""
    texts = [
        GenerationRequest(
            case["prompt"],
            max_new_tokens=len(case["output"]),
            sampling=SamplingRequest(temperature=0, repetition_penalty=case["repetition_penalty"]),
            any_pictures=True,
        )
        for case in golden.expected["greedy_text"]
    ]
    pictures = [
        GenerationRequest(
            case["prompt"][:-1],  # the engine adds begin-of-image
            OutputMode.IMAGE,
            sampling=SamplingRequest(
                image_temperature=0,
                guidance_text=case["guidance_scale_text"],
                guidance_image=case["guidance_scale_image"],
            ),
            any_pictures=True,
        )
        for case in golden.expected["greedy_image"]
    ]
    return texts, pictures


def test_greedy_text_and_guided_greedy_pictures_are_identical(golden: Golden, directory: Path) -> None:
    texts, pictures = greedy(golden)
    checkpoint = open_checkpoint(directory)
    engine = Engine(checkpoint, settings(directory))
    try:
        # All in one batch: what else is in it must not matter.
        answers = engine.generate_batch([*texts, *pictures])
    finally:
        engine.close()
    assert_recorded(golden, checkpoint, answers[: len(texts)], answers[len(texts) :])


@pytest.mark.parametrize(
    "changes", [{"tensor_parallel": 2}, {"speculative_codes": 8}], ids=["two ranks", "drafts"]
)
def test_they_are_with_a_full_cache_alone_in_two_processes_and_with_drafts(
    golden: Golden, changes: dict[str, int]
) -> None:
    texts, pictures = greedy(golden)
    checkpoint = open_checkpoint(golden.checkpoint)
    engine = Engine(checkpoint, settings(golden.checkpoint).model_copy(update=changes))
    try:
        together = engine.generate_batch([*texts, *pictures])
        alone = [engine.generate_batch([request])[0] for request in (*texts, *pictures)]
        assert engine.stats().cached_tokens > 0
    finally:
        engine.close()
    for answers in (together, alone):
        assert_recorded(golden, checkpoint, answers[: len(texts)], answers[len(texts) :])


def assert_recorded(
    golden: Golden, checkpoint: Checkpoint, texts: list[Answer], pictures: list[Answer]
) -> None:
    for case, answer in zip(golden.expected["greedy_text"], texts, strict=True):
        end = answer.finish.end_id
        assert [*answer.token_ids, *([] if end is None else [end])] == case["output"]
    for case, answer in zip(golden.expected["greedy_image"], pictures, strict=True):
        codes = list(answer.pictures[0].codes[:96])
        assert checkpoint.vocabulary.code_ids[codes].tolist() == case["output_first_96"]


def test_the_filtered_distribution_of_the_next_code_is_equal(golden: Golden) -> None:
    checkpoint: Checkpoint = open_checkpoint(golden.checkpoint)
    model, vocabulary = load_model(checkpoint), checkpoint.vocabulary
    prompt = np.array(golden.expected["image_next_probs_prompt"])
    sampling = Sampling(1, 1, 0, 1, 0.7, 0.9, guidance_text=3.0, guidance_image=1.2, seed=0)
    streams = [(guidance_weights(sampling, True)[0], prompt)]
    streams += companion_prompts(prompt, sampling, vocabulary)
    assert len(streams) == 3
    with torch.inference_mode():
        logits = sum(w * model(torch.from_numpy(ids)[None])[0, -1] for w, ids in streams)
    # The share of evenly spread uniform numbers that draw a code is its probability, to 1 / draws.
    draws = 40_000
    draw = Draw.of([(0.7, 0.9, 0)] * draws, torch.device("cpu"))
    uniform = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    drawn = sample(logits[vocabulary.code_ids].expand(draws, -1), draw, uniform)
    found = torch.bincount(drawn, minlength=vocabulary.n_codes).double() / draws
    wanted = golden.arrays["image_next_probs"]
    assert np.abs(found.numpy() - wanted[vocabulary.code_ids]).max() < 1e-4
    assert wanted[~np.isin(np.arange(len(wanted)), vocabulary.code_ids)].max() == 0
