"""What the data hold for the chosen tasks, before any question is asked: examples, bad rows, and what cannot be scored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from evaluation.scorers import Scorers
from evaluation.scorers.core import Scorer
from evaluation.suite.data import BadRow, EvalData
from evaluation.suite.example import Counted, Question, Row, Truth
from evaluation.tasks import Task
from services.errors import InvalidInput


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
            for scorer in each_of(example.task, scorers):
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
                "scale": getattr(scorer, "scale", 1.0),
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


def each_of(task: Task, scorers: Scorers) -> list[Scorer]:
    """The task's scorers of single examples."""
    return [scorers.each[name] for name in task.scorers if name in scorers.each]
