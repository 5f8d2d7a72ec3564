"""Runs the suite: every example asked once, scored once, kept at once.

A fixed number of workers take examples from one stream; what is kept already is not done again. A failed request or score
is a record, not an end: only a changed model, one that answers nothing any more, a full disk or, with `strict`, a bad row
stops a run.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evaluation.scorers import Scorers
from evaluation.scorers.core import Case, Scorer
from evaluation.suite.data import EvalData
from evaluation.suite.example import Answer, Score
from evaluation.suite.models import Model, patiently
from evaluation.suite.records import TRANSIENT, AnswerRecord, Run, write_json
from evaluation.suite.survey import Example, each_of, examples, plan, survey
from evaluation.tasks import Task
from services.errors import MedMaxError, Unavailable

GIVE_UP_AFTER = 50
"""Answers in a row, beyond twice the parallel ones, that failed for want of the model; then it is gone."""


async def run_suite(
    data: EvalData,
    tasks: Mapping[str, Task],
    scorers: Scorers,
    model: Model,
    run: Run,
    *,
    parallel: int = 8,
    limit: int | None = None,
    strict: bool = False,
    progress: Callable[[int, int, int], None] = lambda done, total, failed: None,
) -> None:
    """Ask, score and keep everything that is not kept yet; `results` then make the table from the records.

    Args:
        parallel: examples in work at a time.
        limit: examples of a task, the first ones.
        progress: told examples done, in all, and failed.
    """
    found = await asyncio.to_thread(survey, data, tasks, scorers, limit, strict)
    planned = await asyncio.to_thread(plan, tasks, scorers, found)
    run.facts |= {
        "where": model.where,
        "tasks": {**run.facts.get("tasks", {}), **planned},
        "bad_rows": found.bad.to_json(),
        "unclaimed_rows": found.unclaimed,
        "phantom_examples": found.phantoms,
    }
    write_json(run.folder / "run.json", run.facts)
    stream = examples(data, tasks, limit)
    cases: dict[str, list[Case]] = defaultdict(list)
    done = failed = silent = 0
    progress(0, found.total, 0)

    async def worker() -> None:
        nonlocal done, failed, silent
        for example in stream:
            if not isinstance(example, Example):
                continue
            record = await _answered(example, model, run)
            silent = silent + 1 if record.error and record.error["code"] in TRANSIENT else 0
            if silent >= GIVE_UP_AFTER + 2 * parallel:
                raise Unavailable(
                    f"the model gave no answer {silent} times in a row; the same command goes on later",
                    field="--model",
                )
            if record.error is None:
                active = [
                    scorer
                    for scorer in each_of(example.task, scorers)
                    if scorer.name not in planned[example.task.name]["not_run"]
                ]
                await _scored(example, record, active, run)
            cases[example.task.name].append(_case(example, record, run, scorers))
            done += 1
            failed += record.error is not None
            progress(done, found.total, failed)

    workers = [asyncio.create_task(worker()) for _ in range(parallel)]
    try:
        await asyncio.gather(*workers)
    finally:
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    corpus = await asyncio.to_thread(_corpus, tasks, scorers, planned, cases)
    kept = run.facts.get("corpus", {})
    run.facts["corpus"] = {**kept, **corpus}
    write_json(run.folder / "run.json", run.facts)


async def _answered(example: Example, model: Model, run: Run) -> AnswerRecord:
    """The kept answer, or a new one, kept before anything else is done with it."""
    task, row = example.task, example.row
    known = run.answers.get((task.name, task.version, row.id))
    if known is not None:
        return known
    common: dict[str, Any] = {"topic": example.truth.topic, "group": example.truth.group}
    try:
        answer = await patiently(model, example.question)
    except MedMaxError as error:
        described = {"code": error.code, "message": str(error)[:300]}
        record = AnswerRecord(task.name, task.version, row.id, row.place, error=described, **common)
    except OSError as error:  # the picture's file went away
        described = {"code": "picture_unreadable", "message": type(error).__name__}
        record = AnswerRecord(task.name, task.version, row.id, row.place, error=described, **common)
    else:
        run.note_model(answer)
        record = AnswerRecord(
            task.name, task.version, row.id, row.place, answer.text,
            tuple(run.keep_picture(data) for data in answer.pictures), answer.confidence, answer.model,
            answer.digest, answer.finish, round(answer.latency_ms, 3), **common,
        )  # fmt: skip
    run.add_answer(record)
    return record


async def _scored(example: Example, record: AnswerRecord, active: list[Scorer], run: Run) -> None:
    answer: Answer | None = None
    task, row = example.task, example.row
    for scorer in active:
        key = (task.name, task.version, row.id, scorer.name, scorer.version)
        if key in run.scores or scorer.applies(example.truth) is not None:
            continue
        try:
            answer = answer or run.answer(record)
            score = await scorer.score(example.truth, answer)
        except Exception as error:  # a scorer's defect on one answer is data as well
            score = Score(None, "scorer_failed", f"{type(error).__name__}: {error}")
        run.add_score(task.name, task.version, row.id, scorer.name, scorer.version, score)


def _case(example: Example, record: AnswerRecord, run: Run, scorers: Scorers) -> Case:
    task = example.task
    first = scorers.each.get(task.scorers[0])
    score = (
        run.scores.get((task.name, task.version, example.row.id, first.name, first.version))
        if first
        else None
    )
    drawn: Path | None = run.folder / "pictures" / record.pictures[0] if record.pictures else None
    return Case(
        example.row.id, example.truth.group, drawn, example.row.picture, score.value if score else None
    )


def _corpus(
    tasks: Mapping[str, Task], scorers: Scorers, planned: Mapping[str, Any], cases: Mapping[str, list[Case]]
) -> dict[str, Any]:
    """Scores of whole tasks, by task and scorer."""
    made: dict[str, Any] = {}
    for name, task in tasks.items():
        made[name] = {}
        for scorer_name in task.scorers:
            scorer = scorers.corpus.get(scorer_name)
            if scorer is None or scorer_name in planned[name]["not_run"]:
                continue
            try:
                estimate = scorer.estimate(sorted(cases[name], key=lambda case: case.id))
            except (MedMaxError, ValueError, RuntimeError) as error:
                made[name][scorer_name] = {"version": scorer.version, "not_run": f"failed: {error}"}
                continue
            made[name][scorer_name] = {"version": scorer.version, **estimate.__dict__}
    return made
