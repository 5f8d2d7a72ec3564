from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.checkpoint import GenerationDefaults, open_checkpoint
from services.checkpoint.write import save
from services.errors import CheckpointError
from services.llm.load import load_model
from services.vqgan import load_vqgan
from tests.support.tiny import GRID, N_CODES, RESOLUTION, tiny_checkpoint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path)


def change_config(path: Path, change: Callable[[dict], object]) -> None:
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))


def change_weights(path: Path, change: Callable[[dict], object]) -> None:
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    own = GenerationDefaults(temperature=0.5, guidance_text=2.0)
    checkpoint = open_checkpoint(tiny_checkpoint(tmp_path, generation=own, num_key_value_heads=2))
    assert checkpoint.config.num_key_value_heads == 2
    assert checkpoint.generation == own
    assert (checkpoint.grid, checkpoint.image_size) == ((GRID, GRID), RESOLUTION)
    assert checkpoint.vocabulary.n_codes == N_CODES
    assert checkpoint.provenance["seed"] == 0
    assert dict(checkpoint.tensors("model.norm")).keys() == {"model.norm.weight"}
    assert {name: tuple(t.shape) for name, t in checkpoint.tensors()} == checkpoint.config.shapes()
    pixels = load_vqgan(checkpoint).decode(torch.zeros(1, GRID * GRID, dtype=torch.int64))
    assert pixels.shape == (1, 3, RESOLUTION, RESOLUTION)
    assert load_model(checkpoint)(torch.tensor([[0, 50]])).shape == (1, 2, checkpoint.config.vocab_size)


def test_the_digest_changes_with_the_weights_and_with_nothing_else(tmp_path: Path) -> None:
    digest = open_checkpoint(tiny_checkpoint(tmp_path / "a")).digest
    assert len(digest) == 64
    assert open_checkpoint(tiny_checkpoint(tmp_path / "b")).digest == digest
    other = tiny_checkpoint(tmp_path / "c", generation=GenerationDefaults(temperature=0))
    assert open_checkpoint(other).digest == digest
    assert open_checkpoint(tiny_checkpoint(tmp_path / "d", seed=1)).digest != digest


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "provenance.json", "model.safetensors", "vqgan.safetensors"]
)
@pytest.mark.parametrize("damage", ["missing", "garbage", "truncated"])
def test_a_missing_or_damaged_file_is_named(path: Path, name: str, damage: str) -> None:
    file = path / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"\xff\x00garbage" if damage == "garbage" else content[: len(content) // 2])
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert name.split(".")[0] in caught.value.message
    assert str(path) not in caught.value.message


def test_a_missing_directory_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="MEDMAX_CHECKPOINT"):
        open_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c.pop("hidden_size"), "hidden_size"),
        (lambda c: c.update(hidden_size="32"), "hidden_size"),
        (lambda c: c.update(hidden_size=30), "hidden_size"),
        (lambda c: c.update(num_attention_heads=True), "num_attention_heads"),
        (lambda c: c.update(num_key_value_heads=3), "num_key_value_heads"),
        (lambda c: c.update(num_hidden_layers=0), "num_hidden_layers"),
        (lambda c: c.update(rope_theta=float("nan")), "rope_theta"),
        (lambda c: c.update(swin_norm="no"), "swin_norm"),
        (lambda c: c.update(vocab_size=299), "vocab_size"),
        (lambda c: c.pop("vq_config"), "vq_config"),
        (lambda c: c["vq_config"].update(n_embed=31), "n_embed"),
        (lambda c: c["generation_config"].update(top_p=0.0), "top_p"),
        (lambda c: c["generation_config"].update(temperature=float("inf")), "temperature"),
        (lambda c: c.pop("generation_config"), "generation_config"),
    ],
)
def test_a_wrong_entry_of_the_configuration_is_named(
    path: Path, change: Callable[[dict], object], field: str
) -> None:
    change_config(path, change)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert caught.value.field == field


def test_a_configuration_of_more_layers_than_weights_is_refused(path: Path) -> None:
    change_config(path, lambda c: c.update(num_hidden_layers=3))
    with pytest.raises(CheckpointError, match=r"lacks tensor model\.layers\.2"):
        open_checkpoint(path)


def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(path: Path) -> None:
    change_weights(path, lambda t: t.update({"model.norm.weight": torch.ones(31)}))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight has shape \[31\].*\[32\]"):
        open_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_when_loaded(path: Path, value: float) -> None:
    change_weights(path, lambda t: t["model.norm.weight"].fill_(value))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight holds NaN or infinite"):
        load_model(open_checkpoint(path))


def test_weights_may_be_split_over_several_files(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    names = sorted(tensors)
    save_file({n: tensors[n] for n in names[:5]}, path / "model-00001-of-00002.safetensors")
    save_file({n: tensors[n] for n in names[5:]}, path / "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="in two files"):
        open_checkpoint(path)
    (path / "model.safetensors").unlink()
    assert torch.equal(open_checkpoint(path).tensor("model.norm.weight"), tensors["model.norm.weight"])


def test_an_invalid_checkpoint_replaces_nothing_and_leaves_nothing_behind(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    digest = checkpoint.digest
    tensors = dict(checkpoint.tensors())
    tensors["model.norm.weight"] = torch.full((32,), float("nan"))
    arguments = (checkpoint.config, checkpoint.vq_config, checkpoint.vocabulary.tokenizer_json)
    with pytest.raises(CheckpointError):
        save(path, *arguments, tensors, checkpoint.vqgan_tensors(), {})
    assert open_checkpoint(path).digest == digest
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_valid_checkpoint_replaces_the_old_one(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    tensors = {name: tensor.bfloat16() for name, tensor in checkpoint.tensors()}
    arguments = (checkpoint.config, checkpoint.vq_config, checkpoint.vocabulary.tokenizer_json)
    save(path, *arguments, tensors, checkpoint.vqgan_tensors(), {"step": 2})
    again = open_checkpoint(path)
    assert again.provenance == {"step": 2, "digest": again.digest}
    assert again.tensor("model.norm.weight").dtype == torch.bfloat16
    assert [p.name for p in path.parent.iterdir()] == [path.name]
