"""The published `vqgan.ckpt`, and the VQ-GAN's configuration in both published spellings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.checkpoint.files import read_yaml
from services.checkpoint.formats import read_torch
from services.checkpoint.stored import StoredTensor
from services.errors import CheckpointError
from services.vqgan.config import VQConfig

PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")
CKPT, YAML = "vqgan.ckpt", "vqgan.yaml"
_HF_NAMES = {
    "embed_dim": "embed_dim",
    "num_embeddings": "n_embed",
    "double_latent": "double_z",
    "latent_channels": "z_channels",
    "resolution": "resolution",
    "in_channels": "in_channels",
    "base_channels": "ch",
    "channel_multiplier": "ch_mult",
    "num_res_blocks": "num_res_blocks",
    "attn_resolutions": "attn_resolutions",
    "dropout": "dropout",
}
# transformers leaves out of config.json what has its default value.
_HF_DEFAULTS: dict[str, Any] = {
    "embed_dim": 256,
    "num_embeddings": 8192,
    "latent_channels": 256,
    "resolution": 512,
    "base_channels": 128,
    "channel_multiplier": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
}


def read_ckpt(file: Path) -> dict[str, StoredTensor]:
    """The VQ-GAN's tensors in a published `vqgan.ckpt`, without its training's (`loss.*`).

    Raises:
        CheckpointError: missing, damaged, or no VQ-GAN.
    """
    stored = {name: tensor for name, tensor in read_torch(file).items() if name.startswith(PARTS)}
    if not stored:
        raise CheckpointError("holds no tensors of a VQ-GAN; copy it again", field=file.name)
    return stored


def config_of_yaml(file: Path) -> VQConfig:
    """Raises: CheckpointError where the published `vqgan.yaml` is missing or incomplete."""
    try:
        params = read_yaml(file)["model"]["params"]
        return VQConfig.from_json(params)
    except (KeyError, TypeError):
        raise CheckpointError("lacks model.params; copy it again", field=file.name) from None


def to_yaml(config: VQConfig) -> dict[str, Any]:
    """The content of a `vqgan.yaml`."""
    params = config.to_json()
    params["ddconfig"] = {k: list(v) if isinstance(v, tuple) else v for k, v in params["ddconfig"].items()}
    return {"model": {"target": "taming.models.vqgan.VQModel", "params": params}}


def config_of_hf(values: Mapping[str, Any]) -> VQConfig:
    """From `vq_config` of Hugging Face's config.json. Raises: CheckpointError."""
    given = {**_HF_DEFAULTS, **{k: v for k, v in values.items() if k in _HF_NAMES and v is not None}}
    if values.get("attn_type") not in (None, "vanilla"):
        raise CheckpointError("vq_config: attn_type must be vanilla", field="attn_type")
    fields = {_HF_NAMES[name]: value for name, value in given.items()}
    return VQConfig.from_json({**fields, "ddconfig": fields})


def to_hf(config: VQConfig) -> dict[str, Any]:
    """The `vq_config` of Hugging Face's config.json."""
    values: dict[str, Any] = {name: getattr(config, ours) for name, ours in _HF_NAMES.items()}
    values |= {name: list(values[name]) for name in ("channel_multiplier", "attn_resolutions")}
    return {"model_type": "chameleon_vqgan", "attn_type": "vanilla", **values}
