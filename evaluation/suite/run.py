"""Runs the suite: every example asked once, scored once, kept at once.

A fixed number of workers take examples from one stream; what is kept already is not done again. A failed request or score
is a record, not an end: only a changed model, one that answers nothing any more, a full disk or, with `strict`, a bad row
stops a run.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.scorers import Scorers
from evaluation.scorers.core import Case, Scorer
from evaluation.suite.data import BadRow, EvalData
from evaluation.suite.example import Answer, Counted, Question, Row, Score, Truth
from evaluation.suite.models import Model, patiently
from evaluation.suite.records import TRANSIENT, AnswerRecord, Run, write_json
from evaluation.tasks import Task
from services.errors import InvalidInput, MedMaxError, Unavailable

GIVE_UP_AFTER = 50
"""Answers in a row, beyond twice the parallel ones, that failed for want of the model; then it is gone."""


@dataclass(frozen=True)
class Example:
    """One row under one task."""

    task: Task
    row: Row
    question: Question
    truth: Truth


@dataclass
class Survey:
    """What the data hold for the chosen tasks.

    Attributes:
        examples: by task.
        unclaimed: rows of no chosen task.
        phantoms: examples made from phantoms, which published figures are not about.
        inapplicable: by task and scorer, how many examples it has nothing to say about, and why.
    """

    examples: dict[str, int] = field(default_factory=dict)
    unclaimed: int = 0
    phantoms: int = 0
    bad: Counted = field(default_factory=Counted)
    inapplicable: dict[str, dict[str, tuple[int, str]]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def total(self) -> int:
        return sum(self.examples.values())


def examples(
    data: EvalData, tasks: Mapping[str, Task], limit: int | None
) -> Iterator[Example | BadRow | None]:
    """Examples in the rows' order, at most `limit` of a task; a BadRow for what cannot be used; None for other rows."""
    taken: dict[str, int] = defaultdict(int)
    for row in data.rows():
        if isinstance(row, BadRow):
            yield row
            continue
        claimed = False
        for task in tasks.values():
            if not task.wants(row):
                continue
            claimed = True
            if limit is not None and taken[task.name] >= limit:
                continue
            try:
                example = Example(task, row, task.ask(row), task.truth(row))
            except InvalidInput as error:
                yield BadRow(row.place, f"unfit_for_{task.family}", str(error))
                continue
            taken[task.name] += 1
            yield example
        if not claimed:
            yield None


def survey(
    data: EvalData, tasks: Mapping[str, Task], scorers: Scorers, limit: int | None, strict: bool
) -> Survey:
    """Read all rows once, so that bad ones are named and the work is known before any question is asked.

    Raises:
        InvalidInput: a bad row under `strict`, named by file and line.
    """
    found = Survey(dict.fromkeys(tasks, 0))
    for example in examples(data, tasks, limit):
        if example is None:
            found.unclaimed += 1
        elif isinstance(example, BadRow):
            if strict:
                raise InvalidInput(example.detail, field=example.place)
            found.bad.add(example.place, example.reason, example.detail)
        else:
            name = example.task.name
            found.examples[name] += 1
            found.phantoms += example.row.phantom is not None
            for scorer in _each(example.task, scorers):
                if (reason := scorer.applies(example.truth)) is not None:
                    count, _ = found.inapplicable[name].get(scorer.name, (0, ""))
                    found.inapplicable[name][scorer.name] = (count + 1, reason)
    return found


def plan(tasks: Mapping[str, Task], scorers: Scorers, found: Survey) -> dict[str, Any]:
    """By task: version, examples, scorers with their versions, and why some are not run. Goes into run.json."""
    planned: dict[str, Any] = {}
    for name, task in tasks.items():
        versions, not_run = {}, {}
        for scorer_name in task.scorers:
            scorer: Any = scorers.each.get(scorer_name) or scorers.corpus[scorer_name]
            versions[scorer_name] = {
                "version": scorer.version,
                "metric": scorer.metric,
                "binary": getattr(scorer, "binary", False),
                "corpus": scorer_name in scorers.corpus,
            }
            count, reason = found.inapplicable[name].get(scorer_name, (0, ""))
            if not found.examples[name]:
                not_run[scorer_name] = "the data hold no row of this task"
            elif (missing := scorer.missing()) is not None:
                not_run[scorer_name] = missing
            elif count == found.examples[name]:
                not_run[scorer_name] = reason
        planned[name] = {
            "version": task.version,
            "family": task.family,
            "column": task.column,
            "published": dict(task.published),
            "examples": found.examples[name],
            "scorers": versions,
            "not_run": not_run,
        }
    return planned


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
                    for scorer in _each(example.task, scorers)
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


def _each(task: Task, scorers: Scorers) -> list[Scorer]:
    return [scorers.each[name] for name in task.scorers if name in scorers.each]


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
