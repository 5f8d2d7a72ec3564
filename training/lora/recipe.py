"""Everything that decides what a fine-tuning run yields, and how it is run."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from services.errors import InvalidInput


@dataclass(frozen=True)
class Recipe:
    """What the adapter depends on. The first five are the published ones.

    `batch` packs of `length` ids (0 = the model's context) make one step, whatever the number of workers.
    `image_weight` is what an image code counts for in the loss beside a text id, `keep_weight` what a nat of divergence from
    the base counts for in rows that keep it. `beta` is DPO's, for pairs.
    `holdout` is the share of rows kept for validation where no file of them is given.
    """

    rank: int = 16
    alpha: int = 16
    dropout: float = 0.05
    rate: float = 1e-4
    epochs: int = 3
    warmup: float = 0.1
    batch: int = 8
    length: int = 0
    image_weight: float = 1.0
    keep_weight: float = 1.0
    beta: float = 0.1
    pairs: bool = False
    holdout: float = 0.02
    seed: int = 0
    bfloat16: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Job:
    """A recipe with the files and the machine it is run on. Workers read it from `work/job.json`."""

    recipe: Recipe
    base: Path
    data: Path
    out: Path
    work: Path
    images: Path
    cache: Path
    validation: Path | None = None
    vqgan: Path | None = None
    validation_rows: int = 256
    validate_every: int = 50
    save_every: int = 50
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    recompute: bool = False
    strict: bool = False

    def write(self) -> None:
        values = {n: str(v) if isinstance(v, Path) else v for n, v in asdict(self).items()}
        partial = self.work / "job.partial"
        partial.write_text(json.dumps(values))
        os.replace(partial, self.work / "job.json")

    @classmethod
    def read(cls, work: Path) -> Self:
        values = json.loads((work / "job.json").read_text())
        paths = {"base", "data", "out", "work", "images", "cache", "validation", "vqgan"}
        values |= {name: Path(values[name]) for name in paths if values[name] is not None}
        return cls(**values | {"recipe": Recipe(**values["recipe"])})

    def fingerprint(self, data_digest: str, base_digest: str) -> str:
        """What must be the same for a run to go on from a save."""
        values = [self.recipe.to_json(), data_digest, base_digest]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    def check_free(self) -> None:
        """Raises: InvalidInput where the adapter's folder is there already."""
        if self.out.exists():
            raise InvalidInput("exists and is never overwritten; name another folder", field="--out")
