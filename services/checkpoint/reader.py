"""A checkpoint directory in our own layout, as one description that every part of the program loads from.

config.json            the language model's shape; `vq_config`, `generation_config`
tokenizer.json         Hugging Face tokenizer
model*.safetensors     language model, Hugging Face's Chameleon names
vqgan.safetensors      encoder and decoder of the VQ-GAN
provenance.json        where the weights come from
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from services.checkpoint.config import GenerationDefaults, ModelConfig
from services.checkpoint.tensors import SafetensorsWeights
from services.checkpoint.vocabulary import Vocabulary
from services.errors import CheckpointError
from services.vqgan.config import VQConfig

CONFIG, TOKENIZER, PROVENANCE = "config.json", "tokenizer.json", "provenance.json"
MODEL_FILES, VQGAN_FILE = "model*.safetensors", "vqgan.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What a directory holds; weights stay on disk until they are asked for."""

    config: ModelConfig
    vq_config: VQConfig
    vocabulary: Vocabulary
    generation: GenerationDefaults
    provenance: Mapping[str, Any]
    weights: SafetensorsWeights
    vqgan_weights: SafetensorsWeights
    weight_files: tuple[Path, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Image codes of a picture as (rows, columns)."""
        return self.vq_config.grid

    @property
    def codes_per_image(self) -> int:
        rows, columns = self.grid
        return rows * columns

    @property
    def image_size(self) -> int:
        """Side of a picture in pixels."""
        return self.vq_config.resolution

    @cached_property
    def digest(self) -> str:
        """SHA-256, hex, over the weight files' contents in the order of their names."""
        digest = hashlib.sha256()
        for file in self.weight_files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def tensor(self, name: str) -> Tensor:
        """Raises: CheckpointError where the tensor is missing or not finite."""
        if name not in self.weights:
            raise CheckpointError(f"the model's weights lack tensor {name}", field=name)
        return self.weights[name]

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of everything whose name starts with `prefix`, read one at a time."""
        return ((name, self.weights[name]) for name in self.weights if name.startswith(prefix))

    def vqgan_tensors(self) -> Mapping[str, Tensor]:
        """The VQ-GAN's tensors under taming's names, read when asked for."""
        return self.vqgan_weights


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"the checkpoint lacks {path.name}", field=path.name) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}", field=path.name) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name} must hold one JSON object", field=path.name)
    return value


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"config.json lacks the object {name}", field=name)
    return section


def _check_weights(config: ModelConfig, weights: SafetensorsWeights) -> None:
    for name, shape in config.shapes().items():
        if name not in weights:
            raise CheckpointError(
                f"model*.safetensors lacks tensor {name}; is num_hidden_layers in config.json right?",
                field=name,
            )
        if weights.shape(name) != shape:
            raise CheckpointError(
                f"tensor {name} has shape {list(weights.shape(name))}; config.json calls for {list(shape)}",
                field=name,
            )


def _check_vocabulary(config: ModelConfig, vq_config: VQConfig, vocabulary: Vocabulary) -> None:
    if vocabulary.size > config.vocab_size:
        raise CheckpointError(
            f"tokenizer.json has ids up to {vocabulary.size - 1}, but vocab_size is {config.vocab_size}",
            field="vocab_size",
        )
    if vocabulary.n_codes != vq_config.n_embed:
        raise CheckpointError(
            f"tokenizer.json names {vocabulary.n_codes} image codes, but the VQ-GAN has {vq_config.n_embed}",
            field="n_embed",
        )


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Describe the checkpoint directory `path` and check that its parts fit each other.

    Raises:
        CheckpointError: a file, setting or tensor is missing or damaged, or two of them disagree.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(
            "the checkpoint directory does not exist; set MEDMAX_CHECKPOINT", field="checkpoint"
        )
    raw = _json(path / CONFIG)
    config = ModelConfig.from_json(raw)
    vq_config = VQConfig.from_json(_section(raw, "vq_config"))
    generation = GenerationDefaults.from_json(_section(raw, "generation_config"))
    vocabulary = Vocabulary.from_file(path / TOKENIZER)
    _check_vocabulary(config, vq_config, vocabulary)
    provenance = _json(path / PROVENANCE)
    model_files = sorted(path.glob(MODEL_FILES))
    if not model_files:
        raise CheckpointError(f"the checkpoint lacks {MODEL_FILES}", field="model.safetensors")
    if not (path / VQGAN_FILE).is_file():
        raise CheckpointError(f"the checkpoint lacks {VQGAN_FILE}", field=VQGAN_FILE)
    weights = SafetensorsWeights(model_files)
    _check_weights(config, weights)
    return Checkpoint(
        config=config,
        vq_config=vq_config,
        vocabulary=vocabulary,
        generation=generation,
        provenance=provenance,
        weights=weights,
        vqgan_weights=SafetensorsWeights([path / VQGAN_FILE]),
        weight_files=(*model_files, path / VQGAN_FILE),
    )
