"""A whole fine-tuning run: read the data, learn, write the adapter. Goes on where it was stopped."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import services
from services import config
from services.checkpoint import Checkpoint, open_checkpoint
from services.errors import InvalidInput
from services.llm.group import Alone, Group
from training.lora.adapter import adapted, write_adapter
from training.lora.loop import Trainer
from training.lora.plan import Plan, held_packs
from training.lora.recipe import Job
from training.lora.state import LOG, STATE, load_state, read_log
from training.progress import Progress
from training.rows.pictures import CodeCache, Pictures, encoder_digest
from training.rows.sequence import SequenceMaker
from training.rows.source import Source, open_source
from training.rows.survey import Reader, Survey, survey

_OURS = ("job.json", STATE, LOG, "survey.npz", "skipped.jsonl", "held/survey.npz", "held/skipped.jsonl")


def train(job: Job, progress: Progress) -> dict[str, Any]:
    """Train and write the adapter to `job.out`; unfinished work is kept in `job.work` and taken up again.

    Returns what the command prints.

    Raises:
        InvalidInput: the data cannot be used, `out` exists, or `work` holds another run.
        CheckpointError: the base is missing or damaged.
    """
    job.check_free()
    begin = time.monotonic()
    with _locked(job.work):
        job.write()
        checkpoint = open_checkpoint(job.base, job.vqgan)
        if not (job.work / STATE).exists():  # pictures that were missing may be there by now
            for name in ("survey.npz", "held/survey.npz"):
                (job.work / name).unlink(missing_ok=True)
        with prepared(job, checkpoint, progress) as work:
            state = load_state(job.work / STATE, work.fingerprint)
            if state is None or state["step"] < work.plan.steps:
                _learn(job, checkpoint, work, progress)
                state = load_state(job.work / STATE, work.fingerprint)
            assert state is not None
            provenance = _provenance(job, checkpoint, work, state["seconds"])
            files = {"log.jsonl": job.work / LOG, "skipped.jsonl": job.work / "skipped.jsonl"}
            write_adapter(job.out, job.recipe, state["adapter"], provenance, files)
            result = _result(job, work, state["seconds"], time.monotonic() - begin)
        _clear(job.work)
    return result


class Prepared:
    """A job's data, read and planned."""

    def __init__(self, job: Job, checkpoint: Checkpoint, pictures: Pictures, progress: Progress) -> None:
        recipe, context = job.recipe, checkpoint.config.context
        length = recipe.length or context
        if length > context:
            raise InvalidInput(f"{length}; the model's context has {context}", field="--length")
        maker = SequenceMaker(checkpoint.vocabulary, checkpoint.codes_per_image, length, pictures.codes)
        self.source, self.survey = _survey(job.data, maker, job, recipe.holdout if job.validation is None else 0.0,
                                           job.work, progress)  # fmt: skip
        self.reader = Reader(self.source, maker, pairs=recipe.pairs)
        if not self.survey.learnt.any():
            raise InvalidInput("every row that can be used is held out for validation", field="--holdout")
        held_source, held = self.source, self.survey
        if job.validation is not None:
            held_source, held = _survey(job.validation, maker, job, 0.0, job.work / "held", progress)
        self.held_reader = Reader(held_source, maker, pairs=recipe.pairs)
        self.held = held_packs(held_source, held, recipe, length, job.validation_rows, job.validation is None)
        self.plan = Plan.of(self.source, self.survey, recipe, length)
        self.fingerprint = job.fingerprint(self.source.digest, checkpoint.digest)

    def trainer(self, job: Job, checkpoint: Checkpoint, group: Group) -> Trainer:
        model = adapted(checkpoint, job.recipe, job.device)
        return Trainer(
            job, self.fingerprint, model, group, self.plan, self.reader, self.held, self.held_reader
        )


@contextmanager
def prepared(job: Job, checkpoint: Checkpoint, progress: Progress) -> Iterator[Prepared]:
    """The job's data; surveys are read from `work` where they are kept there."""
    settings = config.load(
        checkpoint=job.base, device=job.device, **({"vqgan": job.vqgan} if job.vqgan else {})
    )
    pictures = Pictures(job.images, settings, CodeCache(job.cache, encoder_digest(checkpoint)))
    try:
        yield Prepared(job, checkpoint, pictures, progress)
    finally:
        pictures.close()


def _survey(
    data: Path, maker: SequenceMaker, job: Job, holdout: float, folder: Path, progress: Progress
) -> tuple[Source, Survey]:
    folder.mkdir(parents=True, exist_ok=True)
    source = open_source(data, folder, lambda done, total: progress("scanning", done, total, {}))
    reader = Reader(source, maker, pairs=job.recipe.pairs)
    stage = "reading" if folder == job.work else "validation"
    found = survey(
        reader, holdout, job.recipe.seed, job.strict, folder / "survey.npz",
        lambda done, total, figures: progress(stage, done, total, figures),
    )  # fmt: skip
    return source, found


def _learn(job: Job, checkpoint: Checkpoint, work: Prepared, progress: Progress) -> None:
    def tell(entry: dict[str, Any]) -> None:
        shown: dict[str, float] = {
            name: entry[name] for name in ("loss", "text", "image", "drift", "preferred") if name in entry
        }
        shown |= {"valid": entry["validation"]["loss"]} if "validation" in entry else {}
        shown |= {"tokens/s": round(entry["tokens_per_s"])} if "tokens_per_s" in entry else {}
        progress("learning", entry["step"], entry["steps"], shown)

    if job.workers > 1:
        from training.lora.workers import learn_with_workers

        learn_with_workers(job, tell)
    else:
        torch.set_num_threads(job.threads)
        work.trainer(job, checkpoint, Alone()).run(tell)


def learn_as(job: Job, group: Group) -> None:
    """One worker's part of a run whose data was surveyed before."""
    torch.set_num_threads(job.threads)
    checkpoint = open_checkpoint(job.base, job.vqgan)
    with prepared(job, checkpoint, lambda stage, done, total, figures: None) as work:
        work.trainer(job, checkpoint, group).run()


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput("another run is at work in this folder", field="--work") from None
        yield


def _clear(work: Path) -> None:
    """Remove what this run left in its folder, and the folder where nothing else is in it."""
    for name in (*_OURS, "lock"):
        (work / name).unlink(missing_ok=True)
    for index in work.rglob("*.index.npz"):
        index.unlink()
    shutil.rmtree(work / "ray", ignore_errors=True)
    for folder in (work / "held", work):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _provenance(job: Job, checkpoint: Checkpoint, work: Prepared, seconds: float) -> dict[str, Any]:
    return {
        "command": "medmax train lora",
        "base": {"digest": checkpoint.digest, "provenance": dict(checkpoint.provenance)},
        "data": {"name": work.source.name, "digest": work.source.digest, "rows": len(work.source)},
        "recipe": job.recipe.to_json(),
        "steps": work.plan.steps,
        "workers": job.workers,
        "device": job.device,
        "seconds": round(seconds, 1),
        "versions": {"medmax-serve": services.__version__, "torch": torch.__version__},
    }


def _result(job: Job, work: Prepared, seconds: float, wall: float) -> dict[str, Any]:
    entries = read_log(job.work / LOG)
    steps = [entry for entry in entries if "rate" in entry]
    tokens = sum(work.plan.tokens(step) for step in range(work.plan.steps))
    first, last = (
        {n: e[n] for n in ("loss", "text", "image", "drift", "preferred", "margin") if n in e}
        for e in (steps[0], steps[-1])
    )
    checks = [{"step": entry["step"], **entry["validation"]} for entry in entries if "validation" in entry]
    return {
        "adapter": str(job.out),
        "steps": work.plan.steps,
        "packs": work.plan.packs,
        "tokens": tokens,
        "tokens_per_s": round(tokens / max(seconds, 1e-9), 1),
        "seconds": round(seconds, 1),
        "seconds_here": round(wall, 1),
        "first": first,
        "last": last,
        "validation": checks,
        "rows": {
            "read": len(work.source),
            "learnt": int(work.survey.learnt.sum()),
            "held_out": int(work.survey.held.sum()),
            "left_out": len(work.survey.skipped.rows),
        },
        "left_out": work.survey.skipped.to_json(),
        "recipe": job.recipe.to_json(),
        "workers": job.workers,
    }


def with_defaults(job: Job) -> Job:
    """The job with every path absolute, since workers have folders of their own."""
    names = ("base", "data", "out", "work", "images", "cache", "validation", "vqgan")
    given = {name: getattr(job, name) for name in names}
    return replace(job, **{name: path.absolute() for name, path in given.items() if path is not None})
