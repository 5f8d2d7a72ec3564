"""A language model with the weights of a checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor

from services.checkpoint import Checkpoint
from services.checkpoint.adapter import Adapter, open_adapter
from services.config import Settings
from services.errors import MedMaxError
from services.llm.model import Chameleon


def load_state(
    checkpoint: Checkpoint,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    rank: int = 0,
    size: int = 1,
) -> dict[str, Tensor]:
    """The transformer's weights, or the part that rank `rank` of `size` keeps; read one at a time.

    Raises:
        CheckpointError: a tensor is missing, has the wrong shape or is not finite, or the model does not divide.
    """
    return {name: part.to(device=device, dtype=dtype) for name, part in checkpoint.slices(rank, size)}


def load_model(
    checkpoint: Checkpoint, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Chameleon:
    """The transformer of `checkpoint` as one module, ready for inference.

    Raises:
        CheckpointError: as `load_state`.
    """
    with torch.device("meta"):
        model = Chameleon(checkpoint.config)
    model.load_state_dict(load_state(checkpoint, device, dtype), assign=True)
    return model.eval().requires_grad_(False)


def open_adapters(settings: Settings, checkpoint: Checkpoint) -> dict[str, Adapter]:
    """The adapters that the settings name, checked against their base; their tensors are read later.

    Raises:
        CheckpointError: one is missing, damaged, for another checkpoint, or they are too large together.
    """
    found: dict[str, Adapter] = {}
    left = settings.adapter_bytes
    for name, folder in settings.adapters.items():
        try:
            found[name] = open_adapter(folder, checkpoint, limit=left, stated=True)
        except MedMaxError as error:
            raise error.under(f"MEDMAX_ADAPTERS[{name}]") from None
        left -= found[name].nbytes
    return found
