"""Saved state of a run: written whole, to the disk, and read back only by the same run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from services.errors import InvalidInput

STATE, LOG = "state.pt", "log.jsonl"


def save_state(path: Path, fingerprint: str, state: dict[str, Any]) -> None:
    """A kill at any moment leaves this save or the one before."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save({"fingerprint": fingerprint, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_state(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The last save, or None where there is none.

    Raises:
        InvalidInput: it belongs to a run with other settings, data or weights.
    """
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    if state["fingerprint"] != fingerprint:
        raise InvalidInput(
            "holds the unfinished run of other settings, data or weights; name another folder or remove it",
            field="--work",
        )
    return state


class Log:
    """One JSON line a step. Lines of steps after the last save are taken back when a run goes on."""

    def __init__(self, path: Path, step: int) -> None:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(kept))
        os.replace(partial, path)
        self._path = path

    def add(self, entry: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
