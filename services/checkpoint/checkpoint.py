"""The one description of a checkpoint, whatever its layout on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from services.checkpoint.config import GenerationDefaults, ModelConfig
from services.checkpoint.sharding import bounds
from services.checkpoint.tensors import Weights
from services.checkpoint.vocabulary import Vocabulary
from services.errors import CheckpointError
from services.vqgan.config import VQConfig


class Layout(StrEnum):
    """How a checkpoint lies on disk."""

    OWN = "medmax"
    META = "meta"
    HUGGING_FACE = "hf"


@dataclass(frozen=True)
class Checkpoint:
    """What a directory holds; weights stay on disk until they are asked for.

    Attributes:
        weights: the language model's, under Hugging Face's names, q and k in rotate-half order.
        vqgan_weights: the VQ-GAN's, under taming's names; the decoder may be missing.
    """

    config: ModelConfig
    vq_config: VQConfig
    vocabulary: Vocabulary
    generation: GenerationDefaults
    provenance: Mapping[str, Any]
    weights: Weights
    vqgan_weights: Weights
    weight_files: tuple[Path, ...]
    layout: Layout = Layout.OWN

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
    def file_digests(self) -> dict[str, str]:
        """SHA-256, hex, of each weight file, by its name."""
        return {file.name: _sha256(file) for file in self.weight_files}

    @cached_property
    def digest(self) -> str:
        """SHA-256, hex, over the weight files' contents in the order of their names."""
        digest = hashlib.sha256()
        for file in self.weight_files:
            digest.update(bytes.fromhex(self.file_digests[file.name]))
        return digest.hexdigest()

    @property
    def has_encoder(self) -> bool:
        return "encoder.conv_in.weight" in self.vqgan_weights

    @property
    def has_decoder(self) -> bool:
        return "decoder.conv_in.weight" in self.vqgan_weights

    def tensor(self, name: str) -> Tensor:
        """Raises: CheckpointError where the tensor is missing or not finite."""
        if name not in self.weights:
            raise CheckpointError(f"the model's weights lack tensor {name}", field=name)
        return self.weights[name]

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of everything whose name starts with `prefix`, read one at a time."""
        return ((name, self.weights[name]) for name in self.weights if name.startswith(prefix))

    def slice(self, name: str, rank: int, size: int) -> Tensor:
        """What tensor-parallel rank `rank` of `size` keeps of a tensor; no more than that is held in memory.

        Raises:
            CheckpointError: the model does not divide by `size`, or the tensor is missing or damaged.
        """
        if name not in self.weights:
            raise CheckpointError(f"the model's weights lack tensor {name}", field=name)
        axis, start, stop = bounds(self.config, name, rank, size)
        return self.weights.part(name, axis, start, stop)

    def slices(self, rank: int, size: int) -> Iterator[tuple[str, Tensor]]:
        """Name and part of every tensor of the language model for one rank, read one at a time."""
        return ((name, self.slice(name, rank, size)) for name in self.config.shapes())

    def vqgan_tensors(self, *, encoder: bool = False, decoder: bool = False) -> Mapping[str, Tensor]:
        """The VQ-GAN's tensors under taming's names, read when asked for.

        Raises:
            CheckpointError: a half that is asked for is not there.
        """
        for wanted, there, half in ((encoder, self.has_encoder, "en"), (decoder, self.has_decoder, "de")):
            if wanted and not there:
                raise CheckpointError(
                    f"the checkpoint has no VQ-GAN {half}coder; put the published vqgan.ckpt into its directory"
                    " or name it with MEDMAX_VQGAN",
                    field="vqgan.ckpt",
                )
        return self.vqgan_weights


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
