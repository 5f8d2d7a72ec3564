"""Hugging Face's Chameleon layout.

config.json                      shapes, `vq_config`, and `vocabulary_map` from names to ids
tokenizer.json                   the tokenizer; without it no text can be read
model*.safetensors (and index)   `model.layers.*`, `lm_head`, `model.vqmodel.*` (VQ-GAN without its decoder)
vqgan.ckpt                       not part of the layout: the published VQ-GAN, whose decoder draws pictures
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from services.checkpoint.checkpoint import Checkpoint, Layout
from services.checkpoint.checks import check_vocabulary, check_weights
from services.checkpoint.config import ModelConfig
from services.checkpoint.extras import extras
from services.checkpoint.files import read_json
from services.checkpoint.stored import StoredTensor
from services.checkpoint.tensors import StoredWeights, read_files
from services.checkpoint.vocabulary import Vocabulary
from services.checkpoint.vq import CKPT, config_of_hf, read_ckpt
from services.errors import CheckpointError

INDEX = "model.safetensors.index.json"
VQ_PREFIX = "model.vqmodel."
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 65536,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}


def is_hugging_face(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is Hugging Face's, not ours."""
    vq_config = config.get("vq_config")
    if isinstance(vq_config, dict) and "ddconfig" in vq_config:
        return False
    marks = {"vocabulary_map", "transformers_version", "vq_config"} & config.keys()
    return config.get("model_type") == "chameleon" and "generation_config" not in config and bool(marks)


def open_hugging_face(path: Path, vqgan: Path | None) -> Checkpoint:
    """Describe a directory in Hugging Face's layout.

    Args:
        vqgan: the published `vqgan.ckpt`; default: the one in the directory, if there is one.

    Raises:
        CheckpointError: a file, setting or tensor is missing or damaged, or two of them disagree.
    """
    raw = read_json(path / "config.json")
    vq_config = config_of_hf(raw.get("vq_config") or {})
    vocabulary, named_by = _vocabulary(path, raw)
    provenance, generation, _ = extras(path)
    config = _model_config(raw)
    check_vocabulary(config, vq_config, vocabulary, named_by, exact=True)
    files = _model_files(path)
    stored = read_files(files)
    model = StoredWeights({n: t for n, t in stored.items() if not n.startswith(VQ_PREFIX)})
    check_weights(config, model, "model*.safetensors")
    vq = {n.removeprefix(VQ_PREFIX): t for n, t in stored.items() if n.startswith(VQ_PREFIX)}
    ckpt = vqgan or next((f for f in (path / CKPT, path / "tokenizer" / CKPT) if f.is_file()), None)
    if ckpt is not None:
        given = read_ckpt(ckpt)
        _check_same_codebook(vq, given, ckpt.name)
        # It is the original, in full precision; the layout's own copy may have been rounded.
        vq |= given
    return Checkpoint(
        config=config,
        vq_config=vq_config,
        vocabulary=vocabulary,
        generation=generation,
        provenance=provenance,
        weights=model,
        vqgan_weights=StoredWeights(vq),
        weight_files=(*files, *([ckpt] if ckpt else [])),
        layout=Layout.HUGGING_FACE,
    )


def _model_config(raw: Mapping[str, Any]) -> ModelConfig:
    values = {**_DEFAULTS, **raw}
    if values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = values["num_attention_heads"]
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise CheckpointError(
            f"config.json: rope_type {kind} is not supported; only default is", field="rope_type"
        )
    values["rope_theta"] = rope.get("rope_theta", raw.get("rope_theta", 10_000.0))
    for name in ("attention_bias", "mlp_bias"):
        if raw.get(name):
            raise CheckpointError(f"config.json: {name} is not supported", field=name)
    return ModelConfig.from_json(values)


def _vocabulary(path: Path, raw: Mapping[str, Any]) -> tuple[Vocabulary, str]:
    """The vocabulary and the file that names it."""
    names = raw.get("vocabulary_map")
    if (path / "tokenizer.json").is_file():
        vocabulary = Vocabulary.from_file(path / "tokenizer.json")
        wrong = vocabulary.first_disagreement(names) if isinstance(names, dict) else None
        if wrong is not None:
            raise CheckpointError(
                f"vocabulary_map in config.json gives {wrong} another id than tokenizer.json;"
                " copy both from the same checkpoint",
                field="vocabulary_map",
            )
        return vocabulary, "tokenizer.json"
    if not isinstance(names, dict):
        raise CheckpointError("the checkpoint lacks tokenizer.json; copy it again", field="tokenizer.json")
    return Vocabulary.of_names(names), "vocabulary_map in config.json"


def _model_files(path: Path) -> list[Path]:
    if (path / INDEX).is_file():
        index = read_json(path / INDEX).get("weight_map")
        if not isinstance(index, dict) or not index:
            raise CheckpointError(f"{INDEX} lacks weight_map; copy it again", field=INDEX)
        files = sorted({path / Path(str(name)).name for name in index.values()})
    else:
        files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise CheckpointError(
            "the checkpoint lacks model*.safetensors; copy it again", field="model.safetensors"
        )
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file.name} is missing; {INDEX} names it, copy it again", field=file.name)
    return files


def _check_same_codebook(
    own: Mapping[str, StoredTensor], given: Mapping[str, StoredTensor], file: str
) -> None:
    name = "quantize.embedding.weight"
    if name in own and name in given:
        rounded = given[name].read().to(own[name].dtype) if own[name].shape == given[name].shape else None
        if rounded is None or not torch.equal(rounded, own[name].read()):
            raise CheckpointError("has another codebook than the checkpoint's own VQ-GAN", field=file)
