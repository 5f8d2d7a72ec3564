"""A VQ-GAN with the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from services.errors import CheckpointError
from services.vqgan.config import VQConfig
from services.vqgan.model import VQGAN


class VQCheckpoint(Protocol):
    """What `load_vqgan` needs of `services.checkpoint.Checkpoint`."""

    @property
    def vq_config(self) -> VQConfig: ...

    def vqgan_tensors(self, *, encoder: bool = False, decoder: bool = False) -> Mapping[str, Tensor]: ...


def load_vqgan(
    checkpoint: VQCheckpoint,
    encoder: bool = True,
    decoder: bool = True,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VQGAN:
    """The VQ-GAN of a checkpoint, ready for inference, with the halves asked for.

    Raises:
        CheckpointError: a half or a tensor is missing, has the wrong shape or is not finite.
    """
    tensors = checkpoint.vqgan_tensors(encoder=encoder, decoder=decoder)
    model = build_vqgan(checkpoint.vq_config, tensors, encoder, decoder)
    return model.to(device=device, dtype=dtype)


def build_vqgan(
    config: VQConfig, tensors: Mapping[str, Tensor], encoder: bool = True, decoder: bool = True
) -> VQGAN:
    """A VQ-GAN with these weights; tensors that belong to no wanted part (`loss.*`) are ignored."""
    with torch.device("meta"):
        model = VQGAN(config, encoder=encoder, decoder=decoder)
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise CheckpointError(f"the VQ-GAN lacks {len(missing)} tensors, the first is {missing[0]}")
    state = {name: tensors[name] for name in wanted}
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            found, expected = list(tensor.shape), list(wanted[name].shape)
            raise CheckpointError(f"VQ-GAN tensor {name} has shape {found}, expected {expected}")
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"VQ-GAN tensor {name} holds NaN or infinite values")
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)
