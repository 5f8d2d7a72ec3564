"""The reference's recorded answers on two tiny checkpoints in Meta's layout; see tests/data/golden/README.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent / "data" / "golden"
NAMES = ("mha", "gqa_swin")


@dataclass(frozen=True)
class Golden:
    """One folder: a checkpoint, pictures, and what the reference answers."""

    name: str

    @property
    def folder(self) -> Path:
        return ROOT / self.name

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @cached_property
    def expected(self) -> dict[str, Any]:
        return json.loads((self.folder / "expected.json").read_text())  # type: ignore[no-any-return]

    @cached_property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        with np.load(self.folder / "expected.npz") as arrays:
            return dict(arrays)
