"""The adapter: put over a Chameleon, and written in PEFT's own layout beside a `provenance.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from services.checkpoint import Checkpoint
from services.checkpoint.adapter import PROVENANCE, TARGETS, WEIGHTS
from services.checkpoint.files import write_json
from services.checkpoint.staging import staged
from services.llm.load import load_model
from services.llm.model import Chameleon
from training.lora.recipe import Recipe

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


def lora_config(recipe: Recipe) -> LoraConfig:
    from peft import LoraConfig

    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=list(TARGETS),
        bias="none",
    )


def adapted(checkpoint: Checkpoint, recipe: Recipe, device: str) -> PeftModel:
    """The checkpoint's transformer with a fresh adapter, which leaves its answers as they are until it learns.

    Weights stay in bfloat16 where the checkpoint has them so and the recipe computes so; else they are float32. The
    adapter is float32.
    """
    from peft import get_peft_model

    stored = checkpoint.weights.dtype("model.norm.weight")
    narrow = recipe.bfloat16 and stored == torch.bfloat16
    model = load_model(checkpoint, device, torch.bfloat16 if narrow else torch.float32)
    torch.manual_seed(recipe.seed)
    made = get_peft_model(model, lora_config(recipe))
    assert not isinstance(made, str)
    return made


def chameleon(model: PeftModel) -> Chameleon:
    """The transformer within, whose projections carry the adapter."""
    inner = model.base_model.model
    assert isinstance(inner, Chameleon)
    return inner


def learnt_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model))


def write_adapter(
    out: Path,
    recipe: Recipe,
    tensors: Mapping[str, Tensor],
    provenance: Mapping[str, Any],
    beside: Mapping[str, Path],
) -> None:
    """Write the folder `out`, complete or not at all. `beside` are files to copy into it, by name."""
    import shutil

    from safetensors.torch import save_file

    with staged(out) as folder:
        lora_config(recipe).save_pretrained(str(folder))
        save_file(
            {n: t.detach().cpu().contiguous() for n, t in tensors.items()}, folder / WEIGHTS, {"format": "pt"}
        )
        (folder / WEIGHTS).chmod(0o644)
        write_json(folder / PROVENANCE, provenance)
        for name, source in beside.items():
            shutil.copyfile(source, folder / name)
        folder.rename(out)
