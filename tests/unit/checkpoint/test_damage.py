"""Damaged checkpoints: one line that names the file and what to do, and nothing half-written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.checkpoint import Layout, open_checkpoint
from services.checkpoint.convert import convert
from services.errors import CheckpointError
from services.llm.load import load_model
from services.vqgan import load_vqgan

WEIGHTS = Path("models", "tiny", "consolidated.pth")
PARAMS = Path("models", "tiny", "params.json")
TOKENIZER = Path("tokenizer", "text_tokenizer.json")
YAML, CKPT = Path("tokenizer", "vqgan.yaml"), Path("tokenizer", "vqgan.ckpt")


def refusal(act: Callable[[], object], root: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text
    assert str(root) not in text
    return caught.value


def all_of(path: Path) -> None:
    """What every service together reads."""
    checkpoint = open_checkpoint(path)
    load_model(checkpoint)
    load_vqgan(checkpoint)


def change_torch(file: Path, change: Callable[[dict], object]) -> None:
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)


@pytest.mark.parametrize("file", [WEIGHTS, PARAMS, TOKENIZER, YAML, CKPT], ids=lambda path: path.name)
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "empty"])
def test_a_file_of_meta_s_layout_that_is_missing_or_damaged_is_named(
    meta: Path, file: Path, damage: str
) -> None:
    content = (meta / file).read_bytes()
    match damage:
        case "missing":
            (meta / file).unlink()
        case "truncated":
            (meta / file).write_bytes(content[: len(content) // 2])
        case "garbage":
            (meta / file).write_bytes(b"\xff\x00garbage")
        case "empty":
            (meta / file).write_bytes(b"")
    error = refusal(lambda: all_of(meta), meta)
    assert file.name in str(error)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_shard_of_hugging_face_s_layout_is_named(hf: Path, damage: str) -> None:
    file = sorted(hf.glob("model-*.safetensors"))[1]
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2)
    error = refusal(lambda: all_of(hf), hf)
    assert file.name in str(error)
    assert "copy" in error.message


@pytest.mark.parametrize("gone", [0, 1])
def test_a_missing_model_parallel_shard_is_named_with_their_number(meta: Path, gone: int) -> None:
    from tests.unit.checkpoint.test_meta import shard

    shard(meta, 2)
    (meta / WEIGHTS.parent / f"consolidated.0{gone}.pth").unlink()
    error = refusal(lambda: all_of(meta), meta)
    assert f"consolidated.0{gone}.pth is missing; the model has 2 such files" in error.message


def test_a_truncated_model_parallel_shard_is_named(meta: Path) -> None:
    from tests.unit.checkpoint.test_meta import shard

    shard(meta, 2)
    file = meta / WEIGHTS.parent / "consolidated.01.pth"
    os.truncate(file, file.stat().st_size - 1000)
    assert refusal(lambda: all_of(meta), meta).field == "consolidated.01.pth"


def test_a_file_that_shrinks_after_it_was_opened_is_told(hf: Path) -> None:
    checkpoint = open_checkpoint(hf)
    file = sorted(hf.glob("model-*.safetensors"))[0]
    os.truncate(file, file.stat().st_size // 2)
    assert "ends too early" in refusal(lambda: load_model(checkpoint), hf).message


@pytest.mark.parametrize("size", [383, 385, 400])
def test_a_vocabulary_size_that_is_not_the_weights_is_refused(meta: Path, size: int) -> None:
    params = json.loads((meta / PARAMS).read_text())
    params["model"]["vocab_size"] = size
    (meta / PARAMS).write_text(json.dumps(params))
    error = refusal(lambda: all_of(meta), meta)
    assert (error.field, "different checkpoints" in error.message) == ("vocab_size", True)


@pytest.mark.parametrize("layout", [Layout.META, Layout.HUGGING_FACE])
def test_the_tokenizer_of_another_checkpoint_is_refused(meta: Path, hf: Path, layout: Layout) -> None:
    path, file = (meta, meta / TOKENIZER) if layout is Layout.META else (hf, hf / "tokenizer.json")
    content = json.loads(file.read_text())
    content["model"]["vocab"].pop("<reserved20383>")
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<reserved20383>"]
    file.write_text(json.dumps(content))
    assert (
        f"{file.name} has ids up to 382, but vocab_size is 384" in refusal(lambda: all_of(path), path).message
    )


def test_a_tensor_of_another_vocabulary_is_refused(meta: Path) -> None:
    change_torch(meta / WEIGHTS, lambda state: state.update({"output.weight": torch.zeros(400, 64)}))
    assert "[400, 64]; params.json calls for [384, 64]" in refusal(lambda: all_of(meta), meta).message


class Exploit:
    """What a hostile pickle does when it is opened carelessly."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("file", [WEIGHTS, CKPT], ids=lambda path: path.name)
def test_code_in_a_pickle_is_not_run(meta: Path, tmp_path: Path, file: Path) -> None:
    mark = tmp_path / "mark"
    content = torch.load(meta / file, weights_only=True)
    torch.save({**content, "exploit": Exploit(mark)}, meta / file)
    error = refusal(lambda: all_of(meta), meta)
    assert error.field == file.name
    assert "code" in error.message
    assert not mark.exists()
    torch.load(meta / file, weights_only=False)
    assert mark.exists()  # it would have been


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("file", [WEIGHTS, CKPT], ids=lambda path: path.name)
def test_values_that_are_not_finite_are_refused_and_nothing_is_written(
    meta: Path, tmp_path: Path, file: Path, value: float
) -> None:
    def spoil(content: dict) -> None:
        state = content.get("state_dict", content)
        name = next(
            n for n in state if n.startswith(("layers.2.attention.wk", "decoder.mid.attn_1.q.weight"))
        )
        state[name].view(-1)[7] = value

    change_torch(meta / file, spoil)
    error = refusal(lambda: all_of(meta), meta)
    assert f"holds NaN or infinite values; {file.name} is damaged" in error.message
    refusal(lambda: convert(open_checkpoint(meta), tmp_path / "new"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["meta"]


def test_not_finite_shows_in_hugging_face_s_layout_too(hf: Path) -> None:
    file = next(f for f in hf.glob("model-*") if "model.layers.1.mlp.up_proj.weight" in load_file(f))
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(tensors, file)
    assert file.name in refusal(lambda: all_of(hf), hf).message


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_half_a_vqgan_is_named(meta: Path, tmp_path: Path, half: str) -> None:
    def halve(content: dict) -> None:
        content["state_dict"] = {n: t for n, t in content["state_dict"].items() if not n.startswith(half)}

    change_torch(meta / CKPT, halve)
    checkpoint = open_checkpoint(meta)
    load_vqgan(checkpoint, encoder=half != "encoder", decoder=half != "decoder")
    for attempt in (lambda: load_vqgan(checkpoint), lambda: convert(checkpoint, tmp_path / "new")):
        error = refusal(attempt, meta)
        assert f"no VQ-GAN {half}" in error.message
        assert error.field == "vqgan.ckpt"
    assert not (tmp_path / "new").exists()


def test_a_lost_tensor_is_named(meta: Path) -> None:
    change_torch(meta / WEIGHTS, lambda state: state.pop("layers.1.feed_forward.w2.weight"))
    assert "model.layers.1.mlp.down_proj.weight" in refusal(lambda: all_of(meta), meta).message


def test_a_file_of_something_else_is_told(meta: Path) -> None:
    torch.save([torch.zeros(3)], meta / WEIGHTS)
    assert refusal(lambda: all_of(meta), meta).field == "consolidated.pth"
    torch.save({"step": 3}, meta / CKPT)
    assert "consolidated.pth" in str(refusal(lambda: all_of(meta), meta))


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    error = refusal(lambda: open_checkpoint(tmp_path), tmp_path)
    assert "config.json" in error.message
    assert "models/*/params.json" in error.message
