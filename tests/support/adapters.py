"""Small LoRA adapters of random weights, as `medmax train lora` writes them, and the slow way to compute with one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from services.checkpoint import Checkpoint
from services.checkpoint.adapter import CONFIG, PROVENANCE, TARGETS, WEIGHTS, open_adapter
from services.llm.load import load_model
from services.llm.model import Chameleon


def tiny_adapter(
    folder: Path,
    base: Checkpoint,
    *,
    seed: int = 0,
    rank: int = 4,
    targets: Sequence[str] = TARGETS,
    **changes: Any,
) -> Path:
    """Write an adapter of `base` as the folder `folder`; `changes` go into its adapter_config.json."""
    folder.mkdir(parents=True)
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in base.config.shapes().items():
        if name.split(".")[-2] in targets:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            # Large enough that it changes most answers.
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, shape[1], generator=random) * 0.3
            tensors[f"{stem}.lora_B.weight"] = torch.randn(shape[0], rank, generator=random) * 0.3
    save_file(tensors, folder / WEIGHTS)
    config = {"peft_type": "LORA", "bias": "none", "r": rank, "lora_alpha": rank}
    (folder / CONFIG).write_text(json.dumps({**config, "target_modules": list(targets), **changes}))
    (folder / PROVENANCE).write_text(json.dumps({"base": {"digest": base.digest}}))
    return folder


@torch.no_grad()
def adapted(base: Checkpoint, folder: Path) -> Chameleon:
    """The base in float64 with the adapter's products added to its weights."""
    model, adapter = load_model(base, dtype=torch.float64), open_adapter(folder, base)
    for name, weight in model.named_parameters():
        if name in adapter.pairs:
            a, b = (half.read().double() for half in adapter.pairs[name])
            weight += b @ a * adapter.scaling
    return model
