"""Saved state of a run: written whole, and read back only by the same recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def save_state(path: Path, recipe: Mapping[str, Any], state: dict[str, Any]) -> None:
    """Write `state` beside the part of the recipe that it depends on; a kill in between leaves the save before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save({"recipe": dict(recipe), **state}, partial)
    os.replace(partial, path)


def load_state(path: Path, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last save, or None where there is none.

    Raises:
        ValueError: it was made by another recipe, so going on would mix two runs.
    """
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True)
    if state["recipe"] != dict(recipe):
        raise ValueError(f"{path.name} was saved by another recipe; give another --work folder or remove it")
    return state
