from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from services.checkpoint import Layout, ModelConfig, open_checkpoint
from services.checkpoint.names import from_pairs, to_pairs
from services.llm.load import load_model
from tests.support.golden import NAMES, Golden

MODEL = Path("models", "tiny")
# The axis along which Meta's model parallelism divides each weight; what is not named is copied.
AXES = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w3": 0, "w2": 1, "tok_embeddings": 1, "output": 0}


def shard(path: Path, count: int) -> list[dict[str, torch.Tensor]]:
    """Rewrite consolidated.pth as model-parallel shards, and return them."""
    folder = path / MODEL
    whole = torch.load(folder / "consolidated.pth", weights_only=True)
    shards: list[dict[str, torch.Tensor]] = [{} for _ in range(count)]
    for name, tensor in whole.items():
        axis = next((axis for part, axis in AXES.items() if part in name.split(".")), None)
        pieces = [tensor] * count if axis is None else tensor.chunk(count, axis)
        for target, piece in zip(shards, pieces, strict=True):
            target[name] = piece.clone()
    for index, target in enumerate(shards):
        torch.save(target, folder / f"consolidated.{index:02d}.pth")
    (folder / "consolidated.pth").unlink()
    (folder / "consolidate_params.json").write_text(json.dumps({"model_parallel_size": count}))
    return shards


def test_the_description_has_what_the_files_say(meta: Path) -> None:
    checkpoint = open_checkpoint(meta)
    assert checkpoint.layout is Layout.META
    assert checkpoint.config == ModelConfig(384, 64, 3, 4, 2, 176, 4096, 10_000.0, 1e-5, swin_norm=True)
    assert checkpoint.grid == (32, 32)
    assert (checkpoint.vocabulary.bos, checkpoint.vocabulary.begin_image) == (0, 261)
    assert checkpoint.has_encoder
    assert checkpoint.has_decoder
    assert not any(name.startswith("loss.") for name in checkpoint.vqgan_weights)
    assert checkpoint.tensor("model.norm.weight").dtype == torch.bfloat16


def test_a_model_s_own_folder_opens_as_its_root_does(meta: Path) -> None:
    assert open_checkpoint(meta / MODEL).digest == open_checkpoint(meta).digest


def test_several_models_below_one_root_must_be_told_apart(meta: Path) -> None:
    other = meta / "models" / "other"
    other.mkdir()
    (other / "params.json").write_text("{}")
    with pytest.raises(Exception, match="other, tiny"):
        open_checkpoint(meta)
    assert open_checkpoint(meta / MODEL).config.hidden_size == 64


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [2, 4])
def test_shards_give_the_tensors_of_the_whole_file(name: str, count: int, meta: Path, tmp_path: Path) -> None:
    whole = open_checkpoint(Golden(name).checkpoint)
    if whole.config.num_key_value_heads % count:
        pytest.skip("fewer key heads than shards")
    target = tmp_path / "sharded"
    meta.rename(target)
    for file in (Golden(name).checkpoint / MODEL).iterdir():
        (target / MODEL / file.name).write_bytes(file.read_bytes())
    shard(target, count)
    sharded = open_checkpoint(target)
    assert sharded.config == whole.config
    for tensor in whole.config.shapes():
        assert torch.equal(sharded.tensor(tensor), whole.tensor(tensor)), tensor


def test_each_shard_s_norms_are_those_of_its_own_heads(meta: Path) -> None:
    shards = shard(meta, 2)
    key = "layers.1.attention.q_normalization.bias"
    shards[1][key] += 1
    torch.save(shards[1], meta / MODEL / "consolidated.01.pth")
    bias = open_checkpoint(meta).tensor("model.layers.1.self_attn.q_norm.bias")
    assert torch.equal(bias[0], bias[1])
    assert torch.equal(bias[2], from_pairs(shards[1][key], 16))
    assert torch.equal(bias[2], bias[3])
    assert not torch.equal(bias[1], bias[2])


def test_pairs_turn_into_halves_and_back() -> None:
    rows = torch.arange(2 * 8 * 3).view(16, 3)
    halves = from_pairs(rows, 8)
    assert halves[:8, 0].tolist() == rows[[0, 2, 4, 6, 1, 3, 5, 7], 0].tolist()
    assert torch.equal(to_pairs(halves, 8), rows)
    norm = torch.arange(8)
    assert from_pairs(norm, 8).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert torch.equal(to_pairs(from_pairs(norm, 8), 8), norm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_keep_their_dtype_until_a_model_is_loaded_in_another(meta: Path, dtype: torch.dtype) -> None:
    file = meta / MODEL / "consolidated.pth"
    state = {name: t.to(dtype) for name, t in torch.load(file, weights_only=True).items()}
    torch.save(state, file)
    checkpoint = open_checkpoint(meta)
    assert {checkpoint.weights.dtype(name) for name in checkpoint.weights} == {dtype}
    assert checkpoint.tensor("lm_head.weight").dtype == dtype
    assert load_model(checkpoint, dtype=torch.float32).head.dtype == torch.float32


@pytest.mark.parametrize("how", ["shared", "left out"])
def test_a_head_that_is_the_embedding_is_tied(meta: Path, how: str) -> None:
    file = meta / MODEL / "consolidated.pth"
    state = torch.load(file, weights_only=True)
    if how == "shared":
        state["output.weight"] = state["tok_embeddings.weight"]
    else:
        del state["output.weight"]
    torch.save(state, file)
    checkpoint = open_checkpoint(meta)
    assert checkpoint.config.tie_word_embeddings
    assert torch.equal(load_model(checkpoint, dtype=torch.bfloat16).head, state["tok_embeddings.weight"])
