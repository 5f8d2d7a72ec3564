"""A data-set version → a candidate: LoRA on the model in service, merged into a checkpoint of its own.

Where the settings ask for it, a second adapter then learns the version's preference pairs by DPO, on what the rows gave.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
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
    _keep_base(loop, folder)
    pairs = int(data.scores["counts"]["preferences.jsonl"])
    checkpoint = folder / "checkpoint"
    if 0 < loop.settings.train.preferences <= pairs:
        rows_alone = folder / "checkpoint-rows"
        _stage(loop, data, folder, ROWS, base_of(folder), rows_alone)
        _stage(loop, data, folder, PAIRS, rows_alone, checkpoint)
    else:
        _stage(loop, data, folder, ROWS, base_of(folder), checkpoint)
    loop.store.versions.candidate(name, path=str(checkpoint.absolute()), parent=data.id)
    return Result(done=1, said={"candidate": name})


@dataclass(frozen=True)
class Stage:
    """One adapter: its folders' names, the option that names the data, and the file."""

    adapter: str
    work: str
    option: str
    file: str


ROWS = Stage("adapter", "work", "--data", "rows")
PAIRS = Stage("adapter-pairs", "work-pairs", "--preferences", "preferences")


def _stage(loop: Loop, data: Version, folder: Path, stage: Stage, base: Path, checkpoint: Path) -> None:
    """Learn one file on `base` and merge it into `checkpoint`; what is there already is kept."""
    _lora(loop, data, folder, stage, base)
    point("train.trained")
    if not (checkpoint / "config.json").exists():
        medmax(
            loop, folder, "train", "merge",
            *options(
                [
                    ("--adapter", folder / stage.adapter), ("--out", checkpoint), ("--base", base),
                    ("--weight", loop.settings.train.weight),
                ]
            ),
        )  # fmt: skip
    point("train.merged")


def _keep_base(loop: Loop, folder: Path) -> None:
    """A training that is gone on with must not change what it is based on."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / BASE).exists():
        part = folder / f"{BASE}.part"
        part.write_text(json.dumps({"base": str(loop.checkpoint.absolute())}))
        part.replace(folder / BASE)


def _lora(loop: Loop, data: Version, folder: Path, stage: Stage, base: Path) -> None:
    own, path = loop.settings.train, Path(data.path)
    if (folder / stage.adapter).exists():  # which appears whole or not at all
        return
    pairs = stage is PAIRS
    validation = path / f"{stage.file}-validation.jsonl"
    medmax(
        loop, folder, "train", "lora",
        *options(
            [
                (stage.option, path / f"{stage.file}.jsonl"),
                ("--validation", validation if validation.stat().st_size else None),
                ("--holdout", None if validation.stat().st_size else 0),
                ("--out", folder / stage.adapter), ("--work", folder / stage.work), ("--base", base),
                ("--epochs", own.preference_epochs if pairs else own.epochs),
                ("--rate", own.preference_rate if pairs else own.rate),
                ("--rank", own.rank), ("--batch", own.batch),
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
    own, left_out = loop.settings.train, {"enabled", "min_rows", "threads"}
    if not own.preferences:  # ids of before there were pairs stay
        left_out |= {"preferences", "preference_rate", "preference_epochs"}
    recipe = own.model_dump_json(exclude=left_out)
    return f"lora-{data.id[:12]}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


def candidate_folder(loop: Loop, data: Version) -> Path:
    return loop.folder / "models" / candidate_id(loop, data)


def _trained(loop: Loop, data: Version) -> bool:
    name = candidate_id(loop, data)
    return any(each.id == name for each in loop.store.versions.all(What.MODEL))
