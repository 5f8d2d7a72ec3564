"""Checkpoints of any size, generated while they are written: nothing of their size is held in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch
from torch import Tensor

from services.checkpoint import GenerationDefaults, ModelConfig, Vocabulary, code_name
from services.checkpoint.checkpoint import Checkpoint
from services.checkpoint.tensors import Weights
from services.vqgan import VQGAN, VQConfig
from tests.support.tiny import tiny_tokenizer

_PERIOD = 1_000_003


class GeneratedWeights(Weights):
    """bfloat16 noise; the same for the same name."""

    def __init__(self, config: ModelConfig) -> None:
        self._shapes = config.shapes()
        noise = torch.randn(_PERIOD, generator=torch.Generator().manual_seed(0)) * 0.02
        self._noise = noise.bfloat16()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        return torch.bfloat16

    def part(self, name: str, axis: int, start: int, stop: int) -> Tensor:
        shape = self._shapes[name]
        count = torch.Size(shape).numel()
        noise = self._noise.roll(sum(name.encode()))
        tensor = noise.repeat(-(-count // _PERIOD))[:count].view(shape)
        # As published: the q and k norms of all heads are one.
        if "_norm." in name:
            tensor = tensor[:1].expand(shape) + (1 if name.endswith("weight") else 0)
        return tensor.narrow(axis, start, stop - start).contiguous()

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


class ModuleWeights(Weights):
    """A module's own tensors."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._state = module.state_dict()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._state[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._state[name].dtype

    def part(self, name: str, axis: int, start: int, stop: int) -> Tensor:
        tensor: Tensor = self._state[name]
        return tensor.narrow(axis, start, stop - start).contiguous() if tensor.ndim else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def padded_tokenizer(size: int, codes: int) -> str:
    """The tiny tokenizer with `codes` image codes and reserved names up to `size` ids."""
    description = json.loads(tiny_tokenizer())
    vocabulary = description["model"]["vocab"]
    for k in range(codes):
        vocabulary.setdefault(code_name(k), len(vocabulary))
    vocabulary |= {f"<reserved{i:05d}>": i for i in range(len(vocabulary), size)}
    return json.dumps(description)


def generated(config: ModelConfig, vq_config: VQConfig) -> Checkpoint:
    """A checkpoint that exists only in its description; `convert` writes it."""
    return Checkpoint(
        config=config,
        vq_config=vq_config,
        vocabulary=Vocabulary(padded_tokenizer(config.vocab_size, vq_config.n_embed)),
        generation=GenerationDefaults(),
        provenance={"command": "tests.support.generated"},
        weights=GeneratedWeights(config),
        vqgan_weights=ModuleWeights(VQGAN(vq_config)),
        weight_files=(),
    )
