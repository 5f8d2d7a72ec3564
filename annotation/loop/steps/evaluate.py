"""A candidate and the model in service, asked the same: the suite on both, and their comparison."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from annotation.loop.commands import medmax, options
from annotation.loop.context import Loop
from annotation.loop.faults import point
from annotation.loop.result import Result
from annotation.loop.settings import EvaluationSet
from annotation.loop.steps.train import base_of
from annotation.store import Status, Version, What

COMPARED = "compared.json"


def run(loop: Loop) -> Result:
    """Evaluate candidates that nobody decided on and that were not evaluated."""
    result = Result()
    for candidate in undecided(loop):
        if compared(candidate) is not None:
            continue
        if not loop.settings.evaluation:
            result.failed["no_evaluation_set"] += 1
            continue
        _evaluate(loop, candidate)
        result.done += 1
        result.said["candidate"] = candidate.id
    return result


def undecided(loop: Loop) -> list[Version]:
    """Candidates, the oldest first."""
    found = [each for each in loop.store.versions.all(What.MODEL) if each.status is Status.CANDIDATE]
    return found[::-1]


def compared(candidate: Version) -> list[dict[str, Any]] | None:
    """The comparisons of a candidate with what it was trained on, one for each evaluation set; None before."""
    file = Path(candidate.path).parent / COMPARED
    return list(json.loads(file.read_text())) if file.exists() else None


def _evaluate(loop: Loop, candidate: Version) -> None:
    folder = Path(candidate.path).parent
    found = []
    for each in loop.settings.evaluation:
        data = data_of(loop, each)
        runs = []
        for checkpoint in (base_of(folder), Path(candidate.path)):
            runs.append(_suite(loop, data, checkpoint))
            point("evaluate.run")
        found.append(medmax(loop, folder, "eval", "compare", *map(str, runs)))
    part = folder / f"{COMPARED}.part"
    part.write_text(json.dumps(found))
    part.replace(folder / COMPARED)
    point("evaluate.compared")


def _suite(loop: Loop, data: Path, checkpoint: Path) -> Path:
    """The folder of the run of a model on a set; gone on with where it was cut short, and made once for a base."""
    own = loop.settings.evaluate
    asked = json.dumps([str(data), str(checkpoint), own.model_dump(mode="json", exclude={"parallel"})])
    run = loop.folder / "evaluations" / hashlib.sha256(asked.encode()).hexdigest()[:16]
    medmax(
        loop, run.with_name(f"{run.name}.job"), "eval", "suite",
        *options(
            [
                ("--data", data), ("--model", checkpoint), ("--run", run), ("--limit", own.limit),
                ("--tasks", ",".join(own.tasks) or None), ("--parallel", own.parallel),
            ]
        ),
        *own.extra,
    )  # fmt: skip
    return run


def data_of(loop: Loop, each: EvaluationSet) -> Path:
    """Where the set lies; phantoms are drawn once."""
    if each.data is not None:
        return each.data
    from evaluation.suite.phantom_data import write_phantom_data

    folder = loop.folder / "phantoms" / f"{each.phantom_seed}-{each.phantom_count}"
    if not folder.exists():
        import shutil

        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        assert each.phantom_seed is not None
        write_phantom_data(part, each.phantom_seed, each.phantom_count)
        part.rename(folder)
    return folder
