"""Folders that claim to hold a LoRA adapter: what is right is read, everything else is named."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from services.checkpoint import Checkpoint, open_checkpoint
from services.checkpoint.adapter import CONFIG, PROVENANCE, WEIGHTS, open_adapter
from services.errors import CheckpointError
from tests.support.adapters import tiny_adapter
from tests.support.tiny import tiny_checkpoint

QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint(tmp_path_factory.mktemp("base")))


@pytest.fixture
def folder(base: Checkpoint, tmp_path: Path) -> Path:
    return tiny_adapter(tmp_path / "adapter", base, rank=4, lora_alpha=6)


def test_what_is_read_is_what_was_written(base: Checkpoint, folder: Path) -> None:
    adapter, tensors = open_adapter(folder, base, stated=True), load_file(folder / WEIGHTS)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert (adapter.rank, adapter.scaling) == (4, 1.5)
    expected = tensors[f"{QUERY}.lora_B.weight"] @ tensors[f"{QUERY}.lora_A.weight"] * 1.5
    torch.testing.assert_close(adapter.delta(name), expected)
    whole = adapter.part(base.config, name, 0, 1)
    halves = [adapter.part(base.config, name, rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat([b for _, b in halves]), whole[1])
    down = "model.layers.0.mlp.down_proj.weight"
    halves = [adapter.part(base.config, down, rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat([a for a, _ in halves], 1), adapter.part(base.config, down, 0, 1)[0])


def test_the_digest_is_of_what_the_adapter_computes(base: Checkpoint, tmp_path: Path) -> None:
    def digest(name: str, **changes: Any) -> str:
        return open_adapter(tiny_adapter(tmp_path / name, base, **changes), base).digest

    one = digest("one")
    assert digest("same", lora_dropout=0.1) == one
    assert (
        len({one, digest("seed", seed=1), digest("alpha", lora_alpha=5), digest("rs", use_rslora=True)}) == 4
    )


def test_rank_stabilised_scaling(base: Checkpoint, tmp_path: Path) -> None:
    made = tiny_adapter(tmp_path / "a", base, rank=4, lora_alpha=6, use_rslora=True)
    assert open_adapter(made, base).scaling == 6 / math.sqrt(4)


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "IA3"}, "must be LoRA"),
    ({"bias": "all"}, "without biases"),
    *(
        ({name: True}, name)
        for name in ("use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save", "rank_pattern")
    ),
    ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    ({"init_lora_weights": ["x"]}, "init_lora_weights"),
    *(({"r": rank}, "r must be") for rank in (0, -1, True, 1025, "4", None, 4.0, 10**30)),
    *(
        ({"lora_alpha": alpha}, "lora_alpha must be")
        for alpha in (0, -1, True, "1", None, math.nan, math.inf, 1e7, 10**400)
    ),
    ({"use_rslora": "yes"}, "use_rslora"),
    *(
        ({"target_modules": named}, "target_modules")
        for named in ("all-linear", [], ["lm_head"], ["embed_tokens", "q_proj"], [1], {"q_proj": 1})
    ),
    ({"target_modules": ["q_proj"]}, "none of the projections"),
    ({"r": 5}, "does not fit"),
]


@pytest.mark.parametrize(("changes", "words"), CONFIGS)
def test_a_wrong_setting_is_named(
    base: Checkpoint, folder: Path, changes: dict[str, Any], words: str
) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError, match=words):
        open_adapter(folder, base)


def _with(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return apply


def _pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({}, folder / "adapter_model.bin")


def _pipe(folder: Path) -> None:
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG)


DAMAGE: list[tuple[Callable[[Path], object], str, str]] = [
    (lambda f: (f / CONFIG).unlink(), "is missing", CONFIG),
    (_pipe, "is no file", CONFIG),
    (lambda f: (f / CONFIG).write_bytes(b"{" + b" " * (1 << 20)), "bytes", CONFIG),
    (lambda f: (f / CONFIG).write_text("[" * 200_000), "no JSON", CONFIG),
    (lambda f: (f / CONFIG).write_bytes(b"\xff"), "no JSON", CONFIG),
    (lambda f: (f / CONFIG).write_text("[]"), "JSON object", CONFIG),
    (lambda f: (f / PROVENANCE).write_text("{"), "no JSON", PROVENANCE),
    (lambda f: (f / PROVENANCE).write_text('{"base": {"digest": "00"}}'), "another checkpoint", "base"),
    (_pickled, "is missing", WEIGHTS),
    (lambda f: (f / WEIGHTS).write_bytes(b""), "cannot be read", WEIGHTS),
    (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-1]), "cannot be read", WEIGHTS),
    (lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 64), "cannot be read", WEIGHTS),
    (lambda f: save_file({}, f / WEIGHTS), "no tensors", WEIGHTS),
    (_with(lambda t: t.update({"x": torch.zeros(1)})), "no tensor of a LoRA", "x"),
    (
        _with(lambda t: t.update({f"{QUERY}.lora_magnitude_vector": torch.zeros(1)})),
        "no tensor of a LoRA",
        f"{QUERY}.lora_magnitude_vector",
    ),
    (
        _with(lambda t: t.pop(f"{QUERY}.lora_A.weight")),
        "half of it",
        "model.layers.0.self_attn.q_proj.weight",
    ),
    (
        _with(lambda t: t.update({f"{QUERY}.lora_A.weight": torch.zeros(4, 31)})),
        "does not fit",
        "model.layers.0.self_attn.q_proj.weight",
    ),
    (
        _with(lambda t: t.update({f"{QUERY}.lora_A.weight": torch.zeros(4, 32, dtype=torch.int32)})),
        "floating-point",
        f"{QUERY}.lora_A.weight",
    ),
    (
        _with(lambda t: t[f"{QUERY}.lora_B.weight"].fill_(math.nan)),
        "NaN or infinite",
        f"{QUERY}.lora_B.weight",
    ),
    (
        _with(
            lambda t: t.update(
                {f"base_model.model.model.layers.9.mlp.up_proj.lora_{h}.weight": torch.zeros(4) for h in "AB"}
            )
        ),
        "no such weight",
        "model.layers.9.mlp.up_proj.weight",
    ),
]


@pytest.mark.parametrize(("damage", "words", "field"), DAMAGE)
def test_damage_is_named(
    base: Checkpoint, folder: Path, damage: Callable[[Path], object], words: str, field: str
) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=words) as caught:
        open_adapter(folder, base)
    assert caught.value.field == field
    assert str(folder) not in str(caught.value)


def test_an_adapter_must_say_what_it_was_trained_on_where_that_is_wanted(
    base: Checkpoint, folder: Path
) -> None:
    (folder / PROVENANCE).unlink()
    assert open_adapter(folder, base).provenance == {}
    with pytest.raises(CheckpointError, match="does not say which checkpoint"):
        open_adapter(folder, base, stated=True)


def test_nothing_is_read_of_a_file_beyond_the_limit(base: Checkpoint, folder: Path) -> None:
    size = (folder / WEIGHTS).stat().st_size
    assert open_adapter(folder, base, limit=size).nbytes == size
    with pytest.raises(CheckpointError, match="are left"):
        open_adapter(folder, base, limit=size - 1)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = (
    "peft_type",
    "bias",
    "r",
    "lora_alpha",
    "use_rslora",
    "init_lora_weights",
    "target_modules",
    "use_dora",
)


@given(changes=st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=4), whole=st.none() | _JSON)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_configuration_is_read_or_refused(
    base: Checkpoint, folder: Path, changes: dict[str, Any], whole: Any
) -> None:
    config = {"peft_type": "LORA", "bias": "none", "r": 4, "lora_alpha": 6}
    (folder / CONFIG).write_text(json.dumps(config | changes if whole is None else whole))
    try:
        adapter = open_adapter(folder, base)
    except CheckpointError:
        return
    assert adapter.rank == 4
    assert math.isfinite(adapter.scaling)
