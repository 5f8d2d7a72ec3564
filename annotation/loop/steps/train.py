"""A data-set version → a candidate: LoRA on the model in service, merged into a checkpoint of its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from annotation.loop.commands import medmax, options
from annotation.loop.context import Loop
from annotation.loop.faults import point
from annotation.loop.result import Result
from annotation.store import Version, What

BASE = "base.json"


def run(loop: Loop, *, now: bool = False) -> Result:
    """Train on the newest version, unless that was done.

    Args:
        now: also where the settings do not train by themselves, or it has few rows.
    """
    data = next(iter(loop.store.versions.all(What.DATA, 1)), None)
    if data is None or not (loop.settings.train.enabled or now):
        return Result(left=0 if data is None else int(not _trained(loop, data)))
    if _trained(loop, data):
        return Result()
    rows = int(data.scores["counts"]["rows.jsonl"])
    if rows < (1 if now else loop.settings.train.min_rows):
        return Result(said={"rows": rows, "wanted": loop.settings.train.min_rows})
    name, folder = candidate_id(loop, data), candidate_folder(loop, data)
    _lora(loop, data, folder)
    point("train.trained")
    checkpoint = folder / "checkpoint"
    if not (checkpoint / "config.json").exists():
        medmax(
            loop, folder, "train", "merge",
            *options(
                [
                    ("--adapter", folder / "adapter"), ("--out", checkpoint), ("--base", base_of(folder)),
                    ("--weight", loop.settings.train.weight),
                ]
            ),
        )  # fmt: skip
    point("train.merged")
    loop.store.versions.candidate(name, path=str(checkpoint.absolute()), parent=data.id)
    return Result(done=1, said={"candidate": name})


def _lora(loop: Loop, data: Version, folder: Path) -> None:
    own, path = loop.settings.train, Path(data.path)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / BASE).exists():
        # Kept: a training that is gone on with must not change what it is based on.
        part = folder / f"{BASE}.part"
        part.write_text(json.dumps({"base": str(loop.checkpoint.absolute())}))
        part.replace(folder / BASE)
    if (folder / "adapter").exists():  # which appears whole or not at all
        return
    validation = path / "rows-validation.jsonl"
    medmax(
        loop, folder, "train", "lora",
        *options(
            [
                ("--data", path / "rows.jsonl"),
                ("--validation", validation if validation.stat().st_size else None),
                ("--holdout", None if validation.stat().st_size else 0),
                ("--out", folder / "adapter"), ("--work", folder / "work"), ("--base", base_of(folder)),
                ("--epochs", own.epochs), ("--rate", own.rate), ("--rank", own.rank), ("--batch", own.batch),
                ("--threads", own.threads), ("--cache", loop.folder / "codes.sqlite3"),
            ]
        ),
        *own.extra,
    )  # fmt: skip


def base_of(folder: Path) -> Path:
    """What the candidate in this folder was trained on."""
    return Path(json.loads((folder / BASE).read_text())["base"])


def candidate_id(loop: Loop, data: Version) -> str:
    """Of the data and of how it is trained: another rate is another candidate."""
    recipe = loop.settings.train.model_dump_json(exclude={"enabled", "min_rows", "threads"})
    return f"lora-{data.id[:12]}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


def candidate_folder(loop: Loop, data: Version) -> Path:
    return loop.folder / "models" / candidate_id(loop, data)


def _trained(loop: Loop, data: Version) -> bool:
    name = candidate_id(loop, data)
    return any(each.id == name for each in loop.store.versions.all(What.MODEL))
