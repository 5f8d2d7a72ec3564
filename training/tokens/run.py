"""A whole run: list what there is, write the shards that are missing, count."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.checkpoint import open_checkpoint
from services.errors import InvalidInput, Unavailable
from training.failures import take_failure
from training.lora.workers import ray_for
from training.progress import Progress
from training.rows.pictures import encoder_digest
from training.rows.source import Source
from training.rows.trouble import Skipped
from training.tokens.shard import ShardWriter, Task, read_report

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".dcm"))
_MANIFEST = ".manifest.json"


def tokenize_dataset(task: Task, workers: int, progress: Progress) -> dict[str, Any]:
    """Write `task.out`: `part-*.parquet`, and `failed.jsonl` with everything left out. Shards that are there stay.

    Raises:
        InvalidInput: there is nothing to tokenize, `out` holds another run's shards, or (strict) a row fails.
        CheckpointError: the checkpoint has no encoder.
    """
    out = Path(task.out)
    for folder in (out, out / ".index", out / ".reports"):
        folder.mkdir(parents=True, exist_ok=True)
    if Path(task.data).is_dir() and not _holds_rows(Path(task.data)):
        task = replace(task, listing=str(out / ".index" / "pictures.jsonl"))
        _list_pictures(Path(task.data), Path(str(task.listing)))
    source = task.source()
    if not len(source):
        raise InvalidInput("holds nothing to tokenize", field=Path(task.data).name)
    _check_manifest(task, source)
    shards = range(-(-len(source) // task.shard_rows))
    missing = [shard for shard in shards if not (task.file(shard).exists() and task.report(shard).exists())]
    done = len(source) - sum(min(task.shard_rows, len(source) - s * task.shard_rows) for s in missing)
    progress("tokenizing", done, len(source), {})
    if missing:
        _write(task, missing, workers, len(source), done, progress)
    return _result(task, shards, len(missing))


def _write(task: Task, missing: list[int], workers: int, total: int, done: int, progress: Progress) -> None:
    workers = min(workers, len(missing))
    gpu = 1.0 if task.device == "cuda" else 0.0
    task.failure.unlink(missing_ok=True)
    with ray_for(workers + 1) as ray:
        import ray.data as data

        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = 0
        shards = data.from_items([{"shard": shard} for shard in missing], override_num_blocks=len(missing))
        counts = shards.map_batches(
            ShardWriter,
            fn_constructor_args=(task,),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            num_gpus=gpu,
        )
        failed = 0
        try:
            for row in counts.iter_rows():
                done, failed = done + row["rows"] + row["failed"], failed + row["failed"]
                progress("tokenizing", done, total, {"failed": float(failed)})
        except ray.exceptions.RayError as error:
            if (known := take_failure(task.failure)) is not None:
                raise known from None
            raise Unavailable(f"a worker failed: {str(error).strip().splitlines()[-1]}") from error


def _holds_rows(folder: Path) -> bool:
    return any(file.suffix in (".jsonl", ".parquet") for file in folder.iterdir())


def _list_pictures(folder: Path, listing: Path) -> None:
    """Names below `folder` of everything that looks like a picture, in order; the same list while they are the same."""
    partial = listing.with_suffix(".partial")
    names: list[str] = []
    for root, folders, files in os.walk(folder):
        folders.sort()
        names += [
            (Path(root) / name).relative_to(folder).as_posix()
            for name in sorted(files)
            if Path(name).suffix.lower() in SUFFIXES
        ]
    content = "".join(json.dumps({"image_path": name}) + "\n" for name in names)
    if listing.exists() and listing.read_text(encoding="utf-8") == content:
        return
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, listing)


def _check_manifest(task: Task, source: Source) -> None:
    checkpoint = open_checkpoint(task.checkpoint, task.vqgan)
    values = {
        "data": source.digest,
        "rows": len(source),
        "encoder": encoder_digest(checkpoint),
        "vocabulary": hashlib.sha256(checkpoint.vocabulary.tokenizer_json.encode()).hexdigest(),
        "shard_rows": task.shard_rows,
    }
    file = Path(task.out) / _MANIFEST
    if not file.exists():
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(values))
        os.replace(partial, file)
    elif json.loads(file.read_text()) != values:
        raise InvalidInput(
            "holds shards of other data, another model or another --shard-rows; name another folder",
            field="--out",
        )


def _result(task: Task, shards: range, written: int) -> dict[str, Any]:
    skipped, rows = Skipped(), 0
    for shard in shards:
        report = read_report(task.report(shard))
        rows += report["rows"]
        skipped.rows += [(place, reason, message) for place, reason, message in report["left_out"]]
    skipped.write(Path(task.out) / "failed.jsonl")
    return {
        "out": task.out,
        "kind": "pictures" if task.listing else "rows",
        "shards": len(shards),
        "shards_written": written,
        "rows": rows,
        "failed": len(skipped.rows),
        "left_out": skipped.to_json(),
    }
