"""A language model with the weights of a checkpoint."""

from __future__ import annotations

import torch

from services.checkpoint import Checkpoint
from services.llm.model import Chameleon


def load_model(
    checkpoint: Checkpoint, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Chameleon:
    """The transformer of `checkpoint`, ready for inference; weights are read one at a time.

    Raises:
        CheckpointError: a tensor is missing, has the wrong shape or is not finite.
    """
    with torch.device("meta"):
        model = Chameleon(checkpoint.config)
    state = {
        name: checkpoint.tensor(name).to(device=device, dtype=dtype) for name in checkpoint.config.shapes()
    }
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)
