"""Do the parts of a checkpoint fit each other?"""

from __future__ import annotations

from services.checkpoint.config import ModelConfig
from services.checkpoint.tensors import Weights
from services.checkpoint.vocabulary import Vocabulary
from services.errors import CheckpointError
from services.vqgan.config import VQConfig


def check_weights(
    config: ModelConfig, weights: Weights, files: str, described_by: str = "config.json"
) -> None:
    """Raises: CheckpointError where a tensor is missing or of another shape than the configuration's."""
    for name, shape in config.shapes().items():
        if name not in weights:
            raise CheckpointError(
                f"{files} lacks tensor {name}; is num_hidden_layers in {described_by} right?", field=name
            )
        if weights.shape(name) != shape:
            raise CheckpointError(
                f"tensor {name} has shape {list(weights.shape(name))}; {described_by} calls for {list(shape)}",
                field=name,
            )
        if not weights.dtype(name).is_floating_point:
            raise CheckpointError(
                f"tensor {name} has dtype {weights.dtype(name)}; quantized weights cannot be read", field=name
            )


def check_vocabulary(
    config: ModelConfig, vq_config: VQConfig, vocabulary: Vocabulary, file: str, *, exact: bool = False
) -> None:
    """Raises: CheckpointError where `file` has other ids or codes than the weights; `exact`: fewer are wrong, too."""
    if vocabulary.size > config.vocab_size or (exact and vocabulary.size != config.vocab_size):
        raise CheckpointError(
            f"{file} has ids up to {vocabulary.size - 1}, but vocab_size is {config.vocab_size};"
            " they are of different checkpoints",
            field="vocab_size",
        )
    if vocabulary.n_codes != vq_config.n_embed:
        raise CheckpointError(
            f"{file} names {vocabulary.n_codes} image codes, but the VQ-GAN has {vq_config.n_embed}",
            field="n_embed",
        )
