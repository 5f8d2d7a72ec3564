"""Whole runs on a tiny model: they learn text and pictures, stop and go on, and merge into a checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from services.checkpoint import Checkpoint, open_checkpoint
from services.config import Settings
from services.errors import CheckpointError, InvalidInput
from services.llm.engine import Engine
from services.llm.load import load_model
from services.llm.request import GenerationRequest, OutputMode, SamplingRequest
from tests.support.instructions import EOT, write_data, write_lines
from training.lora.merge import merge
from training.lora.recipe import Job, Recipe
from training.lora.run import train
from training.rows.sequence import SequenceMaker

QUICK = Recipe(rank=4, rate=1e-2, epochs=2, batch=2, holdout=0.0, length=128)


class Killed(Exception):
    """As if the process had gone."""


def job(folder: Path, tiny: Path, recipe: Recipe = QUICK, out: str = "adapter", **changes: Any) -> Job:
    data = folder / "rows.jsonl"
    if not data.exists():
        write_data(folder, 12)
    made = Job(
        recipe, base=tiny, data=data, out=folder / out, work=folder / f"{out}.work", images=folder,
        cache=folder / "codes.sqlite3", save_every=2, validate_every=100,
    )  # fmt: skip
    return replace(made, **changes)


def quiet(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
    pass


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> tuple[Path, dict[str, Any]]:
    """A folder with data and the adapter of a run of some steps, and what the run returned."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = replace(QUICK, epochs=12, holdout=0.2, seed=2)
    return folder, train(job(folder, tiny, recipe), quiet)


def test_losses_on_text_and_on_pictures_are_finite_and_fall(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, result = trained
    log = [json.loads(line) for line in (folder / "adapter" / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in log if "rate" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, result["steps"] + 1))
    for name in ("text", "image"):
        values = [entry[name] for entry in steps if name in entry]
        assert np.isfinite(values).all()
        assert np.mean(values[-5:]) < 0.9 * np.mean(values[:5])
    first, last = result["validation"][0], result["validation"][-1]
    assert (first["step"], last["step"]) == (0, result["steps"])
    assert np.isfinite(last["loss"])
    assert result["rows"] == {"read": 12, "learnt": 12 - result["rows"]["held_out"], "left_out": 0,
                              "held_out": result["rows"]["held_out"]}  # fmt: skip
    assert result["rows"]["held_out"] > 0
    assert not (folder / "adapter.work").exists()


def test_a_run_that_was_stopped_goes_on_to_the_same_adapter(tmp_path: Path, tiny: Path) -> None:
    straight = job(tmp_path, tiny, out="straight")
    train(straight, quiet)

    def stop(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if stage == "learning" and done == 4:
            raise Killed

    broken = job(tmp_path, tiny, out="broken")
    with pytest.raises(Killed):
        train(broken, stop)
    assert not broken.out.exists()
    seen: list[int] = []
    train(broken, lambda stage, done, total, figures: seen.append(done) if stage == "learning" else None)
    assert seen[0] == 3  # the save was at 2; steps 3 and 4 are taken again
    wanted = tensors(straight.out)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tensors(broken.out).items())
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in (straight.out, broken.out)]
    assert [json.loads(line)["step"] for line in logs[0]] == [json.loads(line)["step"] for line in logs[1]]


def test_another_run_does_not_go_on_from_this_ones_work(tmp_path: Path, tiny: Path) -> None:
    def stop(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if stage == "learning" and done == 3:
            raise Killed

    first = job(tmp_path, tiny)
    with pytest.raises(Killed):
        train(first, stop)
    with pytest.raises(InvalidInput, match="other settings") as caught:
        train(replace(first, recipe=replace(QUICK, rank=8)), quiet)
    assert caught.value.field == "--work"
    first.out.mkdir()
    with pytest.raises(InvalidInput, match="exists"):
        train(first, quiet)


def test_seeds_decide_the_adapter(tmp_path: Path, tiny: Path) -> None:
    one = {**tensors_of(tmp_path, tiny, "a", 0)}
    same, other = tensors_of(tmp_path, tiny, "b", 0), tensors_of(tmp_path, tiny, "c", 1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def tensors_of(folder: Path, tiny: Path, out: str, seed: int) -> dict[str, torch.Tensor]:
    made = job(folder, tiny, replace(QUICK, epochs=1, seed=seed), out)
    train(made, quiet)
    return tensors(made.out)


def test_pairs_teach_to_prefer(tmp_path: Path, tiny: Path) -> None:
    write_data(tmp_path, 4)
    pairs = [
        {"prompt": f"<image>Q{i}", "image_path": f"images/{i % 4}a.png", "chosen": "yes", "rejected": "no"}
        for i in range(6)
    ]
    file = write_lines(tmp_path / "pairs.jsonl", [*pairs, {"prompt": "Q", "chosen": "a", "rejected": "a"}])
    recipe = replace(QUICK, pairs=True, epochs=8, beta=0.5)
    result = train(job(tmp_path, tiny, recipe, data=file), quiet)
    assert result["first"]["loss"] == pytest.approx(np.log(2), abs=0.05)
    assert result["last"]["loss"] < 0.5
    assert result["last"]["preferred"] == 1
    assert result["left_out"]["bad_field"]["first"][0]["row"] == "pairs.jsonl:7"


def test_a_merged_checkpoint_answers_as_its_base_with_the_adapter(
    trained: tuple[Path, dict[str, Any]], tiny: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder, _ = trained
    ids = torch.from_numpy(np.random.default_rng(0).integers(40, 290, (1, 40)))
    with_adapter = get_peft_model(load_model(checkpoint), LoraConfig.from_pretrained(str(folder / "adapter")))
    set_peft_model_state_dict(with_adapter, tensors(folder / "adapter"))
    wanted = with_adapter.eval().base_model.model(ids)
    base = load_model(checkpoint)(ids)
    merged = merge(tiny, folder / "adapter", tmp_path / "merged")
    found = load_model(merged)(ids)
    assert (wanted - base).abs().max() > 0.1
    assert torch.allclose(found, wanted, atol=1e-4)
    untouched = merge(tiny, folder / "adapter", tmp_path / "none", weight=0.0)
    assert torch.equal(load_model(untouched)(ids), base)
    name = "model.layers.1.mlp.down_proj.weight"
    half = merge(tiny, folder / "adapter", tmp_path / "half", weight=0.5).tensor(name)
    assert torch.allclose(half, (checkpoint.tensor(name) + merged.tensor(name)) / 2, atol=1e-6)
    provenance = open_checkpoint(tmp_path / "half").provenance
    assert (provenance["command"], provenance["weight"]) == ("medmax train merge", 0.5)
    assert provenance["source"]["digest"] == provenance["adapter"]["base"]["digest"] == checkpoint.digest
    with pytest.raises(CheckpointError, match="exists"):
        merge(tiny, folder / "adapter", tmp_path / "half")


def test_a_served_adapter_answers_as_the_merged_checkpoint(
    trained: tuple[Path, dict[str, Any]], tiny: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Token for token and code for code, greedily, in float32; the base beside it answers something else."""
    merged = merge(tiny, trained[0] / "adapter", tmp_path / "merged")
    v = checkpoint.vocabulary
    picture = v.image_span(range(checkpoint.codes_per_image))
    greedy = SamplingRequest(temperature=0, image_temperature=0)
    asked = [
        GenerationRequest([v.bos, *shown, *v.encode(text), v.end_of_turn], mode, 24, sampling=greedy)
        for text in ("is it?", "draw a film")
        for shown in ([], picture)
        for mode in OutputMode
    ]

    def answers(base: Checkpoint, adapter: str, **settings: Any) -> list[tuple[Any, ...]]:
        engine = Engine(base, Settings(threads=1, **settings))
        try:
            got = engine.generate_batch([replace(one, adapter=adapter) for one in asked])
        finally:
            engine.close()
        return [(a.text, a.token_ids, [p.codes for p in a.pictures]) for a in got]

    adapters = {"mine": trained[0] / "adapter"}
    served = answers(checkpoint, "mine", adapters=adapters)
    assert served == answers(merged, "")
    assert answers(checkpoint, "", adapters=adapters) == answers(checkpoint, "") != served


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("adapter_config.json", "{", "no JSON"),
        ("adapter_config.json", '{"peft_type": "IA3"}', "must be LoRA"),
        ("adapter_config.json", '{"peft_type": "LORA", "r": 8, "lora_alpha": 16}', "does not fit"),
        (
            "adapter_config.json",
            '{"peft_type": "LORA", "r": 4, "lora_alpha": 16, "use_dora": true}',
            "use_dora",
        ),
        ("provenance.json", '{"base": {"digest": "00"}}', "another checkpoint"),
        ("adapter_model.safetensors", "", "adapter_model"),
    ],
)
def test_a_damaged_or_foreign_adapter_is_refused(
    trained: tuple[Path, dict[str, Any]], tiny: Path, tmp_path: Path, file: str, content: str, message: str
) -> None:
    copy = tmp_path / "adapter"
    copy.mkdir()
    for source in (trained[0] / "adapter").iterdir():
        (copy / source.name).write_bytes(source.read_bytes())
    (copy / file).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        merge(tiny, copy, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_with_values_that_are_not_finite_is_refused(
    trained: tuple[Path, dict[str, Any]], tiny: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "adapter"
    copy.mkdir()
    for source in (trained[0] / "adapter").iterdir():
        (copy / source.name).write_bytes(source.read_bytes())
    broken = tensors(copy)
    next(iter(broken.values()))[0, 0] = float("nan")
    save_file(broken, copy / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="NaN"):
        merge(tiny, copy, tmp_path / "merged")


def test_a_rate_that_diverges_stops_the_run(tmp_path: Path, tiny: Path) -> None:
    made = job(tmp_path, tiny, replace(QUICK, rate=1.0, epochs=60))
    made = replace(made, recipe=replace(made.recipe, rate=1e30))
    with pytest.raises(InvalidInput, match="not finite") as caught:
        train(made, quiet)
    assert caught.value.field == "--rate"


def test_rows_of_tokens_are_learnt_as_their_text_and_pictures_are(
    tmp_path: Path, tiny: Path, checkpoint: Checkpoint
) -> None:
    codes = np.arange(checkpoint.codes_per_image) % checkpoint.vocabulary.n_codes
    maker = SequenceMaker(checkpoint.vocabulary, checkpoint.codes_per_image, 128, lambda path: codes)
    from training.rows.schema import row_of

    texts = [f"<image>Q{i}{EOT}answer {i}" for i in range(6)]
    by_codes = [{"text": text, "image_tokens": codes.tolist()} for text in texts]
    by_tokens = [
        {"text": text, "tokens": maker.tokens(row_of(row)).tolist()}
        for text, row in zip(texts, by_codes, strict=True)
    ]
    found = []
    for name, rows in (("codes", by_codes), ("tokens", by_tokens)):
        made = job(
            tmp_path, tiny, replace(QUICK, epochs=1), name, data=write_lines(tmp_path / f"{name}.jsonl", rows)
        )
        train(made, quiet)
        found.append(tensors(made.out))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
