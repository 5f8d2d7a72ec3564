"""A LoRA adapter's folder, in PEFT's own layout, with every claim checked against the checkpoint that it is for."""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.checkpoint.checkpoint import Checkpoint
from services.checkpoint.config import ModelConfig
from services.checkpoint.formats import read_safetensors
from services.checkpoint.sharding import bounds
from services.checkpoint.stored import StoredTensor
from services.errors import CheckpointError

CONFIG, WEIGHTS, PROVENANCE = "adapter_config.json", "adapter_model.safetensors", "provenance.json"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_RANK, MAX_ALPHA, _MAX_JSON_BYTES = 1024, 1e6, 1 << 20
_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# What else PEFT's LoRA can be: other arithmetic, or weights of the base that the adapter was not trained on.
_UNSUPPORTED = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "loftq_config",
    "modules_to_save",
    "monteclora_config",
    "rank_pattern",
    "alpha_pattern",
    "target_parameters",
    "trainable_token_indices",
)
_PLAIN_STARTS = ("gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk; its tensors stay there until they are asked for.

    Attributes:
        scaling: what B · A is multiplied by.
        pairs: by name of the weight that each changes, A [rank, in] and B [out, rank].
        provenance: what `medmax train lora` wrote beside it; empty where there is none.
        digest: SHA-256, hex, over the tensors' file and the scaling.
        nbytes: of the tensors' file.
    """

    rank: int
    scaling: float
    pairs: Mapping[str, tuple[StoredTensor, StoredTensor]]
    provenance: Mapping[str, Any]
    digest: str
    nbytes: int

    def delta(self, name: str) -> Tensor:
        """What is added to weight `name`, float32 [out, in]."""
        a, b = self.pairs[name]
        return (b.read().float() @ a.read().float()) * self.scaling

    def part(self, config: ModelConfig, name: str, rank: int, size: int) -> tuple[Tensor, Tensor]:
        """A [rank, in] and B [out, rank] of weight `name` as tensor-parallel rank `rank` of `size` needs them.

        Where the weight is shared by its outputs, so is B; where by its inputs, A: the sum over the ranks, which the
        projection needs anyway, then carries the adapter's share.
        """
        a, b = self.pairs[name]
        axis, start, stop = bounds(config, name, rank, size)
        return (a.read(1, start, stop), b.read()) if axis else (a.read(), b.read(0, start, stop))

    def digest_with(self, base: str) -> str:
        """SHA-256, hex, over a checkpoint's digest and this adapter's: what answers under it came from."""
        return hashlib.sha256(bytes.fromhex(base) + bytes.fromhex(self.digest)).hexdigest()


def open_adapter(
    folder: Path, base: Checkpoint, *, limit: int | None = None, stated: bool = False
) -> Adapter:
    """Read an adapter that was made by us or by PEFT for this checkpoint.

    Args:
        limit: bytes that its tensors may have; None = any number.
        stated: it must say which checkpoint it was trained on.

    Raises:
        CheckpointError: it is missing, damaged, too large, of a kind that is not plain LoRA, or for another checkpoint.
    """
    config = _json(folder, CONFIG)
    rank, scaling = _arithmetic(config)
    modules = _modules(config)
    size = _size(folder / WEIGHTS, limit)
    stored = read_safetensors(folder / WEIGHTS)
    pairs = _pairs(stored, rank, modules, base.config)
    provenance = _json(folder, PROVENANCE) if (folder / PROVENANCE).exists() else {}
    _check_base(provenance, base, stated)
    for name, tensor in stored.items():
        if not bool(torch.isfinite(tensor.read()).all()):
            raise CheckpointError("holds NaN or infinite values", field=name)
    with (folder / WEIGHTS).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(scaling.hex().encode())
    return Adapter(rank, scaling, pairs, provenance, digest.hexdigest(), size)


def _arithmetic(config: Mapping[str, Any]) -> tuple[int, float]:
    """Rank and scaling."""
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
        raise CheckpointError("must be LoRA without biases", field=CONFIG)
    if used := [name for name in _UNSUPPORTED if config.get(name)]:
        raise CheckpointError(f"{used[0]} is not supported", field=CONFIG)
    start = config.get("init_lora_weights")
    if start is not None and not isinstance(start, bool) and start not in _PLAIN_STARTS:
        raise CheckpointError("init_lora_weights changed the base's weights; not supported", field=CONFIG)
    rank, alpha, stable = config.get("r"), config.get("lora_alpha"), config.get("use_rslora", False)
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= MAX_RANK:
        raise CheckpointError(f"r must be a whole number from 1 to {MAX_RANK:,}", field=CONFIG)
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha <= MAX_ALPHA:
        raise CheckpointError(f"lora_alpha must be a number above 0, at most {MAX_ALPHA:,.0f}", field=CONFIG)
    if not isinstance(stable, bool | None):
        raise CheckpointError("use_rslora must be true or false", field=CONFIG)
    return rank, alpha / (math.sqrt(rank) if stable else rank)


def _modules(config: Mapping[str, Any]) -> set[str]:
    """Names of the projections that the adapter says it changes."""
    named = config.get("target_modules", list(TARGETS))
    if isinstance(named, list) and all(isinstance(name, str) for name in named):
        found = {name.rsplit(".", 1)[-1] for name in named}
        if found and found <= set(TARGETS):
            return found
    raise CheckpointError(f"target_modules must be a list of {', '.join(TARGETS)}", field=CONFIG)


def _pairs(
    stored: Mapping[str, StoredTensor], rank: int, modules: set[str], config: ModelConfig
) -> dict[str, tuple[StoredTensor, StoredTensor]]:
    halves: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in stored.items():
        if (match := _NAME.fullmatch(name)) is None:
            raise CheckpointError("is no tensor of a LoRA adapter", field=name)
        if not tensor.dtype.is_floating_point:
            raise CheckpointError("must hold floating-point numbers", field=name)
        halves.setdefault(f"{match[1]}.weight", {})[match[2]] = tensor
    if not halves:
        raise CheckpointError("holds no tensors", field=WEIGHTS)
    shapes = config.shapes()
    for name, half in halves.items():
        wanted = shapes.get(name)
        if wanted is None or set(half) != {"A", "B"}:
            raise CheckpointError("the checkpoint has no such weight, or half of it is missing", field=name)
        if name.split(".")[-2] not in modules:
            raise CheckpointError(f"is none of the projections that {CONFIG} names", field=name)
        if half["A"].shape != (rank, wanted[1]) or half["B"].shape != (wanted[0], rank):
            raise CheckpointError(
                f"does not fit the weight's shape {list(wanted)} at rank {rank}", field=name
            )
    return {name: (half["A"], half["B"]) for name, half in halves.items()}


def _check_base(provenance: Mapping[str, Any], base: Checkpoint, stated: bool) -> None:
    source = provenance.get("base")
    made_for = source.get("digest") if isinstance(source, dict) else None
    if made_for is None and stated:
        raise CheckpointError(
            'does not say which checkpoint the adapter was trained on; {"base": {"digest": "…"}} is missing',
            field=PROVENANCE,
        )
    if made_for is not None and made_for != base.digest:
        raise CheckpointError("the adapter was trained on another checkpoint", field="base")


def _size(file: Path, limit: int | None) -> int:
    """Bytes of a regular file: a pipe would be waited for, a pickle is never opened."""
    try:
        found = file.stat()
    except OSError:
        raise CheckpointError("is missing or cannot be read", field=file.name) from None
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError("is no file", field=file.name)
    if limit is not None and found.st_size > limit:
        raise CheckpointError(f"has {found.st_size:,} bytes, and {limit:,} are left", field=file.name)
    return found.st_size


def _json(folder: Path, name: str) -> dict[str, Any]:
    _size(folder / name, _MAX_JSON_BYTES)
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise CheckpointError("cannot be read or is no JSON", field=name) from None
    if not isinstance(value, dict):
        raise CheckpointError("must be a JSON object", field=name)
    return value
