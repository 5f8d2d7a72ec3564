"""Writing Hugging Face's Chameleon layout, with the VQ-GAN's decoder beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.checkpoint.checkpoint import Checkpoint
from services.checkpoint.export_meta import write_vqgan
from services.checkpoint.files import write_json
from services.checkpoint.huggingface import INDEX, VQ_PREFIX
from services.checkpoint.staging import Advance, nbytes, stream_shards
from services.checkpoint.tensors import Weights
from services.checkpoint.vocabulary import PLACEHOLDER
from services.checkpoint.vq import to_hf

_RESERVED = "<reserved08707>"


def write_hugging_face(source: Checkpoint, folder: Path, advance: Advance, shard_bytes: int) -> None:
    """Write `source` to `folder`."""
    write_json(folder / "config.json", _config(source))
    (folder / "tokenizer.json").write_text(source.vocabulary.tokenizer_json, encoding="utf-8")
    tensors: dict[str, tuple[Weights, str]] = {
        name: (source.weights, name) for name in source.config.shapes()
    }
    tensors |= {
        VQ_PREFIX + name: (source.vqgan_weights, name)
        for name in source.vqgan_weights
        if not name.startswith("decoder.")
    }
    files = stream_shards(folder, tensors, shard_bytes, advance)
    size = sum(nbytes(weights, name) for weights, name in tensors.values())
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": files})
    write_vqgan(source, folder, advance)


def _config(source: Checkpoint) -> dict[str, Any]:
    config, vocabulary = source.config, source.vocabulary
    names = vocabulary.ids
    if _RESERVED in names:
        names.setdefault(PLACEHOLDER, names[_RESERVED])  # what transformers calls its placeholder
    return {
        "architectures": ["ChameleonForConditionalGeneration"],
        "model_type": "chameleon",
        **config.to_json(),
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "hidden_act": "silu",
        "dtype": str(source.weights.dtype("model.embed_tokens.weight")).removeprefix("torch."),
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        "vq_config": to_hf(source.vq_config),
        "vocabulary_map": names,
    }
