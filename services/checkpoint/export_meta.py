"""Writing Meta's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from services.checkpoint.checkpoint import Checkpoint
from services.checkpoint.config import ModelConfig
from services.checkpoint.files import write_json
from services.checkpoint.meta import PARAMS, SHARDS_FILE, TEXT_TOKENIZER, WHOLE
from services.checkpoint.names import is_head_norm, is_rotated, meta_name, to_pairs
from services.checkpoint.sharding import bounds
from services.checkpoint.staging import Advance
from services.checkpoint.vq import CKPT, YAML, to_yaml
from services.errors import CheckpointError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def write_meta(source: Checkpoint, folder: Path, advance: Advance) -> None:
    """Write `source` to `folder`, as few shards as its q and k norms allow; one shard is held in memory at a time.

    Raises:
        CheckpointError: the layout cannot hold the model.
    """
    shards = _shards(source)
    model, tokenizer = folder / "models" / _name(source.config), folder / "tokenizer"
    model.mkdir(parents=True)
    tokenizer.mkdir()
    write_json(model / PARAMS, {"model": _params(source.config)})
    write_json(model / SHARDS_FILE, {"model_parallel_size": shards})
    for index in range(shards):
        state = {
            meta_name(name): _part(source, name, index, shards, advance) for name in source.config.shapes()
        }
        if source.config.tie_word_embeddings:
            state[meta_name(HEAD)] = state[meta_name(EMBEDDING)]
        torch.save(state, model / (WHOLE if shards == 1 else f"consolidated.{index:02d}.pth"))
        del state
    (tokenizer / TEXT_TOKENIZER).write_text(source.vocabulary.tokenizer_json, encoding="utf-8")
    write_vqgan(source, tokenizer, advance)


def write_vqgan(source: Checkpoint, folder: Path, advance: Advance) -> None:
    """Write `vqgan.ckpt` and `vqgan.yaml` as published."""
    state = dict(source.vqgan_weights)
    torch.save({"state_dict": state}, folder / CKPT)
    advance(sum(tensor.nbytes for tensor in state.values()))
    text = yaml.safe_dump(to_yaml(source.vq_config), sort_keys=True)
    (folder / YAML).write_text(text, encoding="utf-8")


def _part(source: Checkpoint, name: str, index: int, shards: int, advance: Advance) -> Tensor:
    if name == EMBEDDING:
        # Meta divides the input embedding along the hidden size.
        width = source.config.hidden_size // shards
        tensor = source.weights.part(name, 1, index * width, (index + 1) * width)
    else:
        tensor = source.weights.part(name, *bounds(source.config, name, index, shards))
    advance(tensor.nbytes)
    if is_head_norm(name):
        return to_pairs(tensor[0], source.config.head_dim).contiguous()
    if is_rotated(name):
        return to_pairs(tensor, source.config.head_dim).contiguous()
    return tensor


def _shards(source: Checkpoint) -> int:
    """The fewest shards of whose heads each has the same norms: the layout keeps one q and one k norm per shard."""
    config = source.config
    norms = [source.weights[name] for name in config.shapes() if is_head_norm(name)]
    keys = config.num_key_value_heads
    for shards in (n for n in range(1, keys + 1) if keys % n == 0):
        groups = (norm.view(shards, -1, norm.shape[-1]) for norm in norms)
        if all(bool((group == group[:, :1]).all()) for group in groups):
            break
    else:
        raise CheckpointError(
            "Meta's layout cannot hold this model: query heads of one key head have different norms",
            field="q_norm",
        )
    if shards > 1 and config.tie_word_embeddings:
        raise CheckpointError(
            "Meta's layout cannot hold this model: its embeddings are tied, and its norms need several shards",
            field="tie_word_embeddings",
        )
    for name in ("hidden_size", "intermediate_size", "vocab_size"):
        if getattr(config, name) % shards:
            raise CheckpointError(
                f"Meta's layout cannot hold this model: its norms need {shards} shards, which do not divide {name}",
                field=name,
            )
    return shards


def _name(config: ModelConfig) -> str:
    count = sum(torch.Size(shape).numel() for shape in config.shapes().values())
    return f"{round(count / 1e9)}b" if count >= 1e9 else "small"


def _params(config: ModelConfig) -> dict[str, Any]:
    base = int(2 * (4 * config.hidden_size) / 3)
    inner = config.intermediate_size
    # The reference computes the inner size: base times the multiplier, rounded up to a multiple.
    multiple = next((m for m in (256, 128, 64, 32, 16, 8, 4, 2, 1) if -(-base // m) * m == inner), None)
    sizes: dict[str, Any] = {"multiple_of": multiple}
    if multiple is None:
        sizes = {"multiple_of": 1, "ffn_dim_multiplier": (inner + 0.5) / base}
    return {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        **sizes,
        "norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "qk_normalization": True,
        "swin_norm": config.swin_norm,
        "vocab_size": config.vocab_size,
    }
