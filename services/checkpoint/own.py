"""Our own layout.

config.json            the language model's shape; `vq_config`, `generation_config`
tokenizer.json         Hugging Face tokenizer
model*.safetensors     language model, Hugging Face's Chameleon names
vqgan.safetensors      encoder and decoder of the VQ-GAN
provenance.json        where the weights come from
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.checkpoint.checkpoint import Checkpoint
from services.checkpoint.checks import check_vocabulary, check_weights
from services.checkpoint.config import GenerationDefaults, ModelConfig
from services.checkpoint.files import read_json
from services.checkpoint.tensors import StoredWeights
from services.checkpoint.vocabulary import Vocabulary
from services.errors import CheckpointError
from services.vqgan.config import VQConfig

CONFIG, TOKENIZER, PROVENANCE = "config.json", "tokenizer.json", "provenance.json"
MODEL_FILES, VQGAN_FILE = "model*.safetensors", "vqgan.safetensors"


def open_own(path: Path) -> Checkpoint:
    """Describe a directory in our own layout. Raises: CheckpointError."""
    raw = read_json(path / CONFIG)
    config = ModelConfig.from_json(raw)
    vq_config = VQConfig.from_json(_section(raw, "vq_config"))
    generation = GenerationDefaults.from_json(_section(raw, "generation_config"))
    vocabulary = Vocabulary.from_file(path / TOKENIZER)
    check_vocabulary(config, vq_config, vocabulary, TOKENIZER)
    provenance = read_json(path / PROVENANCE)
    model_files = sorted(path.glob(MODEL_FILES))
    if not model_files:
        raise CheckpointError(f"the checkpoint lacks {MODEL_FILES}", field="model.safetensors")
    if not (path / VQGAN_FILE).is_file():
        raise CheckpointError(f"the checkpoint lacks {VQGAN_FILE}", field=VQGAN_FILE)
    weights = StoredWeights.of_files(model_files)
    check_weights(config, weights, MODEL_FILES)
    return Checkpoint(
        config=config,
        vq_config=vq_config,
        vocabulary=vocabulary,
        generation=generation,
        provenance=provenance,
        weights=weights,
        vqgan_weights=StoredWeights.of_files([path / VQGAN_FILE]),
        weight_files=(*model_files, path / VQGAN_FILE),
    )


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"config.json lacks the object {name}", field=name)
    return section
