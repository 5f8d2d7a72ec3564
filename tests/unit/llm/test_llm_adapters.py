"""Adapters beside the base: nobody else notices them, and nothing of theirs is mistaken for another's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.checkpoint import Checkpoint, open_checkpoint
from services.checkpoint.adapter import Adapter, open_adapter
from services.config import DType, Settings
from services.errors import CheckpointError, ModelNotFound
from services.llm.attention import TorchAttention
from services.llm.batch import Batch
from services.llm.engine import Engine
from services.llm.fused import Fused, forward_for
from services.llm.kv_cache import KVCache
from services.llm.load import load_state
from services.llm.request import GenerationRequest, OutputMode, SamplingRequest
from services.llm.runner import Runner
from services.llm.sequence import Row
from services.llm.servicer import LanguageModelServicer
from services.llm.step import Step
from services.pb.medmax.v1 import common_pb2, llm_pb2
from tests.support.adapters import tiny_adapter
from tests.support.tiny import tiny_checkpoint
from tests.unit.llm.test_llm_equivalence import prompt

CPU = torch.device("cpu")


@pytest.fixture
def opened(checkpoint: Checkpoint, adapters: dict[str, dict[str, Path]]) -> list[Adapter]:
    return [open_adapter(folder, checkpoint) for folder in adapters["mha"].values()]


def reading(checkpoint: Checkpoint, under: tuple[int, ...]) -> tuple[KVCache, Step]:
    """A step that reads prompts of unlike lengths, each under one of two adapters or none."""
    cache = KVCache(checkpoint.config, 40, torch.float32, CPU)
    batch = Batch(checkpoint.config, len(under), cache, seeds=[b"a" * 32, b"b" * 32])
    for index, adapter in enumerate(under):
        row = Row(None, adapter=adapter)  # type: ignore[arg-type]
        batch.add(row, np.arange(5 + 20 * index) % 50)
        assert batch.grow(row, 5 + 20 * index)
    return cache, batch.step(np.arange(len(under)), batch.length.copy())


def hidden(checkpoint: Checkpoint, adapters: list[Adapter], under: tuple[int, ...]) -> torch.Tensor:
    """Of each row's last id, in float32, by the torch runner."""
    runner = Runner(checkpoint.config, load_state(checkpoint), adapters=adapters)
    cache, step = reading(checkpoint, under)
    with torch.inference_mode():
        return runner.forward(step, TorchAttention(cache))[step.ends.argsort()]


def test_a_step_without_adapters_is_bit_for_bit_the_bases(
    checkpoint: Checkpoint, opened: list[Adapter]
) -> None:
    assert torch.equal(hidden(checkpoint, opened, (0, 0, 0)), hidden(checkpoint, [], (0, 0, 0)))


def test_rows_of_the_base_are_bit_for_bit_what_they_are_without_adapters_beside_them(
    checkpoint: Checkpoint, opened: list[Adapter]
) -> None:
    alone, beside = hidden(checkpoint, [], (0, 0, 0)), hidden(checkpoint, opened, (1, 0, 2))
    assert torch.equal(alone[1], beside[1])
    assert not torch.allclose(alone[0], beside[0], atol=1e-2)
    assert not torch.allclose(alone[2], beside[2], atol=1e-2)


def test_compiled_layers_read_the_base_bit_for_bit_with_adapters_loaded(
    checkpoint: Checkpoint, opened: list[Adapter]
) -> None:
    found = []
    for made in ([], opened):
        cache, step = reading(checkpoint, (0, 0, 0))
        forward = forward_for(Runner(checkpoint.config, load_state(checkpoint), adapters=made), cache, 1, 4)
        assert isinstance(forward, Fused)
        found.append(forward(step))
    assert torch.equal(*found)


@pytest.fixture(scope="module")
def serving(checkpoints: dict[str, Checkpoint], adapters: dict[str, dict[str, Path]]) -> Iterator[Engine]:
    settings = Settings(threads=1, adapters=adapters["mha"])
    engine = Engine(checkpoints["mha"], settings, dtype=torch.float64)
    yield engine
    engine.check_integrity()
    engine.close()


def test_a_prompt_is_found_again_under_the_same_adapter_alone(
    serving: Engine, checkpoint: Checkpoint
) -> None:
    ids = prompt(checkpoint, 7, 40, 2)
    asked = GenerationRequest(ids, OutputMode.TEXT, 1)

    def cached(adapter: str) -> int:
        answer = serving.generate_batch([replace(asked, adapter=adapter)])[0]
        return answer.finish.usage.cached_tokens

    whole = (len(ids) - 1) // 16 * 16
    names = ("", "wide", "narrow", "wide", "", "narrow")
    assert [cached(name) for name in names] == [0, 0, 0, whole, whole, whole]


def test_one_step_reads_under_all_of_them(serving: Engine, checkpoint: Checkpoint) -> None:
    asked = [
        GenerationRequest(prompt(checkpoint, seed, 6, 0), OutputMode.TEXT, 1, adapter=adapter)
        for seed, adapter in enumerate(("", "wide", "narrow", "wide"))
    ]
    before = serving.stats().steps
    serving.generate_batch(asked)
    assert serving.stats().steps - before <= 2  # the first may come before the others have arrived


def test_seeded_pictures_differ_by_adapter_and_repeat_under_each(
    serving: Engine, checkpoint: Checkpoint
) -> None:
    sampling = SamplingRequest(seed=3, guidance_text=3.0)
    asked = [
        GenerationRequest(prompt(checkpoint, 1, 6, 1), OutputMode.IMAGE, sampling=sampling, adapter=adapter)
        for adapter in ("", "wide", "narrow")
    ]
    first, again = serving.generate_batch(asked), serving.generate_batch(asked[::-1])[::-1]
    codes = [answer.pictures[0].codes for answer in first]
    assert codes == [answer.pictures[0].codes for answer in again]
    assert len(set(codes)) == 3


def test_an_unknown_adapter_is_refused_by_name_of_the_field(serving: Engine, checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelNotFound) as caught:
        serving.generate_batch([GenerationRequest(prompt(checkpoint, 1, 1, 0), adapter="Erika")])
    assert caught.value.field == "adapter"
    assert "Erika" not in str(caught.value)


async def test_an_answer_names_base_and_adapter_and_a_digest_of_both(
    serving: Engine, checkpoint: Checkpoint
) -> None:
    servicer = LanguageModelServicer(serving, Settings(model_id="tiny"))

    async def model(adapter: str) -> common_pb2.ModelVersion:
        request = llm_pb2.LanguageModelGenerateRequest(
            prompt_ids=prompt(checkpoint, 1, 3, 0), max_new_tokens=1, adapter=adapter
        )
        return [event async for event in servicer.Generate(request)][-1].finish.model

    versions = [await model(adapter) for adapter in ("", "wide", "narrow")]
    assert [version.id for version in versions] == ["tiny", "tiny:wide", "tiny:narrow"]
    assert versions[0].digest == checkpoint.digest
    assert len({version.digest for version in versions}) == 3
    assert all(len(version.digest) == 64 for version in versions)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": {"digest": "0" * 64}}, "another checkpoint"),
        ({}, "does not say which checkpoint"),
        ({"base": {"digest": 5}}, "another checkpoint"),
    ],
)
def test_an_engine_takes_adapters_of_its_own_checkpoint_alone(
    checkpoint: Checkpoint, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    folder = tiny_adapter(tmp_path / "a", checkpoint)
    (folder / "provenance.json").write_text(json.dumps(changes))
    with pytest.raises(CheckpointError, match=words) as caught:
        Engine(checkpoint, Settings(threads=1, adapters={"mine": folder}))
    assert str(caught.value.field).startswith("MEDMAX_ADAPTERS[mine]")


def test_adapters_that_are_too_large_together_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folders = {name: tiny_adapter(tmp_path / name, checkpoint) for name in ("a", "b")}
    size = (folders["a"] / "adapter_model.safetensors").stat().st_size
    settings = Settings(threads=1, adapters=folders, adapter_bytes=2 * size - 1)
    with pytest.raises(CheckpointError, match=f"{size - 1:,} are left") as caught:
        Engine(checkpoint, settings)
    assert "[b]" in str(caught.value.field)


def test_values_that_the_precision_cannot_hold_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "a", checkpoint, lora_alpha=1e6)
    with pytest.raises(CheckpointError, match="too large for torch"):
        Engine(checkpoint, Settings(threads=1, dtype=DType.FLOAT16, adapters={"a": folder}))


def test_half_precision_answers_under_an_adapter(tmp_path: Path) -> None:
    base = open_checkpoint(tiny_checkpoint(tmp_path))
    folder = tiny_adapter(tmp_path / "a", base)
    engine = Engine(base, Settings(threads=1, dtype=DType.BFLOAT16, adapters={"a": folder}))
    try:
        asked = GenerationRequest(prompt(base, 1, 6, 1), OutputMode.IMAGE, adapter="a")
        assert len(engine.generate_batch([asked])[0].pictures[0].codes) == base.codes_per_image
    finally:
        engine.close()
