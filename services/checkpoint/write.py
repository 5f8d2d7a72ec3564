"""Writing a checkpoint directory in our own layout: all of it or nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from services.checkpoint.config import GenerationDefaults, ModelConfig
from services.checkpoint.files import write_json
from services.checkpoint.own import CONFIG, PROVENANCE, TOKENIZER, VQGAN_FILE
from services.checkpoint.reader import open_checkpoint
from services.checkpoint.staging import staged
from services.vqgan.config import VQConfig


def save(
    path: Path | str,
    config: ModelConfig,
    vq_config: VQConfig,
    tokenizer_json: str,
    model_tensors: Mapping[str, Tensor],
    vqgan_tensors: Mapping[str, Tensor],
    provenance: Mapping[str, Any],
    generation: GenerationDefaults | None = None,
) -> None:
    """Write a checkpoint to `path`, replacing what is there only once the new one is complete and valid.

    Tensors keep their dtypes; `provenance` gets the weights' `digest`. The parts are checked against each other as
    `open_checkpoint` does.

    Raises:
        CheckpointError: the parts do not fit each other; `path` is then untouched.
        OSError: the disk is full or not writable; `path` is then untouched.
    """
    path = Path(path)
    with staged(path) as staging:
        write_json(staging / CONFIG, own_config(config, vq_config, generation or GenerationDefaults()))
        write_json(staging / PROVENANCE, provenance)
        (staging / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
        _write_tensors(staging / "model.safetensors", model_tensors)
        _write_tensors(staging / VQGAN_FILE, vqgan_tensors)
        checkpoint = open_checkpoint(staging)
        for weights in (checkpoint.weights, checkpoint.vqgan_weights):
            for name in weights:
                weights[name]  # reading checks that it is finite
        # `medmax doctor` compares it with the weights that it finds.
        write_json(staging / PROVENANCE, {**provenance, "digest": checkpoint.digest})
        _swap(staging, path)


def own_config(config: ModelConfig, vq_config: VQConfig, generation: GenerationDefaults) -> dict[str, Any]:
    """The content of our `config.json`."""
    return {
        "architectures": ["ChameleonForConditionalGeneration"],
        "model_type": "chameleon",
        **config.to_json(),
        "vq_config": vq_config.to_json(),
        "generation_config": generation.to_json(),
    }


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    # Copies, since safetensors refuses tensors that share memory (tied weights, views of one buffer).
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(own, path, metadata={"format": "pt"})
    path.chmod(0o644)


def _swap(staging: Path, path: Path) -> None:
    if not path.exists():
        staging.rename(path)
        return
    previous = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    path.rename(previous)
    try:
        staging.rename(path)
    except OSError:
        previous.rename(path)
        raise
    shutil.rmtree(previous)
