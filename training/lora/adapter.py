"""The adapter: put over a Chameleon, written and read in PEFT's own layout, beside a `provenance.json`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from services.checkpoint import Checkpoint
from services.checkpoint.files import write_json
from services.checkpoint.formats import read_safetensors
from services.checkpoint.staging import staged
from services.errors import CheckpointError
from services.llm.load import load_model
from services.llm.model import Chameleon
from training.lora.recipe import TARGETS, Recipe

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

CONFIG, WEIGHTS, PROVENANCE = "adapter_config.json", "adapter_model.safetensors", "provenance.json"
_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_UNSUPPORTED = (
    "use_dora",
    "use_qalora",
    "alora_invocation_tokens",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
)


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


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk: `pairs`, by name of the weight they change, A [rank, in] and B [out, rank]."""

    scaling: float
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    provenance: Mapping[str, Any]

    def delta(self, name: str) -> Tensor:
        """What is added to weight `name`, float32."""
        a, b = self.pairs[name]
        return (b.float() @ a.float()) * self.scaling


def open_adapter(folder: Path, base: Checkpoint) -> Adapter:
    """Read an adapter that was made by us or by PEFT for this checkpoint.

    Raises:
        CheckpointError: it is missing, damaged, of a kind that is not plain LoRA, or for another checkpoint.
    """
    config = _json(folder / CONFIG)
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
        raise CheckpointError("must be LoRA without biases", field=CONFIG)
    if used := [name for name in _UNSUPPORTED if config.get(name)]:
        raise CheckpointError(f"{used[0]} is not supported", field=CONFIG)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise CheckpointError("r and lora_alpha must be numbers above 0", field=CONFIG)
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    halves: dict[str, dict[str, Tensor]] = {}
    for name, stored in read_safetensors(folder / WEIGHTS).items():
        if (match := _NAME.fullmatch(name)) is None:
            raise CheckpointError("is no tensor of a LoRA adapter", field=name)
        halves.setdefault(f"{match[1]}.weight", {})[match[2]] = stored.read()
    shapes = base.config.shapes()
    for name, half in halves.items():
        wanted = shapes.get(name)
        if wanted is None or set(half) != {"A", "B"}:
            raise CheckpointError("the checkpoint has no such weight, or half of it is missing", field=name)
        if half["A"].shape != (rank, wanted[1]) or half["B"].shape != (wanted[0], rank):
            raise CheckpointError(
                f"does not fit the weight's shape {list(wanted)} at rank {rank}", field=name
            )
        if not all(torch.isfinite(tensor).all() for tensor in half.values()):
            raise CheckpointError("holds NaN or infinite values", field=name)
    if not halves:
        raise CheckpointError("holds no tensors", field=WEIGHTS)
    provenance = _json(folder / PROVENANCE) if (folder / PROVENANCE).exists() else {}
    made_for = (provenance.get("base") or {}).get("digest")
    if made_for is not None and made_for != base.digest:
        raise CheckpointError("the adapter was trained on another checkpoint", field="--base")
    return Adapter(scaling, {name: (half["A"], half["B"]) for name, half in halves.items()}, provenance)


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError("is missing or no JSON", field=file.name) from None
    if not isinstance(value, dict):
        raise CheckpointError("must be a JSON object", field=file.name)
    return value
