"""A run's records as a table: `results.json`, made anew from the records whenever it is asked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.report.calibration import calibration
from evaluation.report.statistics import Mean, mean, stratified
from evaluation.suite.records import AnswerRecord, ScoreRecord, answers_of, read_json, scores_of
from services.errors import InvalidInput

VQA_COLUMNS = (
    "RAD-C", "SLAKE-C", "Path-C", "Quilt-C", "RAD-O", "SLAKE-O", "Path-O", "Quilt-O", "PMC", "Omni", "MMU", "ProbMed",
)  # fmt: skip
PUBLISHED_AVERAGE = {"Chameleon-7B": 39.4, "GPT-4o": 42.0, "HuatuoGPT-V-7B": 52.4, "MedMax-7B": 65.5}


@dataclass
class Records:
    """The records of a run that count: of the versions that it was last run with, the last of each example.

    Attributes:
        facts: run.json.
        answers: by task, by example.
        scores: by (task, scorer), by example.
    """

    folder: Path
    facts: dict[str, Any]
    answers: dict[str, dict[str, AnswerRecord]] = field(default_factory=lambda: defaultdict(dict))
    scores: dict[tuple[str, str], dict[str, ScoreRecord]] = field(default_factory=lambda: defaultdict(dict))

    @classmethod
    def read(cls, folder: Path) -> Records:
        """Raises: InvalidInput where the folder holds no run."""
        if not (folder / "run.json").is_file():
            raise InvalidInput(f"{folder} holds no run (no run.json)", field="RUN")
        records = cls(folder, read_json(folder / "run.json"))
        tasks = records.facts.get("tasks", {})
        for answer in answers_of(folder):
            if answer.task in tasks and answer.task_version == tasks[answer.task]["version"]:
                records.answers[answer.task][answer.id] = answer
        for score in scores_of(folder):
            task = tasks.get(score.task)
            known = task and task["scorers"].get(score.scorer)
            if known and (task["version"], known["version"]) == (score.task_version, score.scorer_version):
                records.scores[score.task, score.scorer][score.id] = score
        return records

    @property
    def tasks(self) -> Mapping[str, Any]:
        return self.facts.get("tasks", {})  # type: ignore[no-any-return]

    def values(self, task: str, scorer: str) -> dict[str, float]:
        """Values by example, of answers that did not fail."""
        answered = self.answers[task]
        return {
            id: score.value
            for id, score in self.scores[task, scorer].items()
            if score.value is not None and id in answered and answered[id].error is None
        }

    def grouped(self, task: str, scorer: str) -> tuple[list[float], list[str]]:
        """Values and the groups of their examples, in a fixed order."""
        values = self.values(task, scorer)
        ids = sorted(values)
        return [values[id] for id in ids], [self.answers[task][id].group for id in ids]


def build(records: Records) -> dict[str, Any]:
    """`results` (one entry for each task and scorer), `averages`, `calibration`, and what went wrong."""
    results = []
    for name, task in records.tasks.items():
        for scorer, about in task["scorers"].items():
            entry = {"task": name, "family": task["family"], "metric": about["metric"], "scorer": scorer,
                     "version": about["version"]}  # fmt: skip
            results.append({**entry, **_numbers(records, name, scorer, about)})
    facts = records.facts
    errors = Counter(
        answer.error["code"]
        for answers in records.answers.values()
        for answer in answers.values()
        if answer.error
    )
    return {
        "run": records.folder.name,
        "begun": facts.get("begun"),
        "model": facts.get("weights", {"id": "", "digest": ""}),
        "where": facts.get("where"),
        "data": facts.get("data"),
        "complete": all(
            len(list(records.answers[name].values())) >= task["examples"]
            for name, task in records.tasks.items()
        ),
        "results": results,
        "averages": averages(records),
        "calibration": _calibrations(records),
        "failed_answers": dict(errors),
        "bad_rows": facts.get("bad_rows"),
        "unclaimed_rows": facts.get("unclaimed_rows"),
        "phantom_examples": facts.get("phantom_examples", 0),
    }


def _numbers(records: Records, task: str, scorer: str, about: Mapping[str, Any]) -> dict[str, Any]:
    nothing = {"n": 0, "failed": 0, "value": None, "stderr": None, "ci95": None}
    planned = records.tasks[task]
    if reason := planned["not_run"].get(scorer):
        return {**nothing, "not_run": reason}
    if about["corpus"]:
        kept = records.facts.get("corpus", {}).get(task, {}).get(scorer)
        if kept is None or kept["version"] != about["version"]:
            return {**nothing, "not_run": "the run did not end"}
        return _of_corpus(kept, nothing)
    broken = [answer.error["code"] for answer in records.answers[task].values() if answer.error]
    failures = Counter(score.failure for score in records.scores[task, scorer].values() if score.failure)
    failures.update(f"answer_{code}" for code in broken)
    values, groups = records.grouped(task, scorer)
    counted: dict[str, Any] = {"failed": sum(failures.values()), "failures": dict(failures)}
    if not values:
        return {
            **nothing,
            **counted,
            "not_run": "no example has a value" if failures else "nothing was asked yet",
        }
    found = mean(values, groups)
    return {
        "n": found.n,
        "value": found.value,
        "stderr": found.stderr,
        "ci95": list(found.ci95) if found.ci95 else None,
        # What the value would be if each failed example had got none of it.
        "value_failed_as_zero": found.value * found.n / (found.n + counted["failed"]),
        **counted,
    }


def _of_corpus(kept: Mapping[str, Any], nothing: Mapping[str, Any]) -> dict[str, Any]:
    if kept.get("not_run"):
        return {**nothing, "failed": kept.get("failed", 0), "not_run": kept["not_run"]}
    stderr, ci95 = kept["stderr"], kept["ci95"]
    if kept["units"]:
        found = mean(kept["units"])
        stderr, ci95 = found.stderr, found.ci95
    made = {"n": kept["n"], "failed": kept["failed"], "value": kept["value"], "stderr": stderr,
            "ci95": list(ci95) if ci95 else None}  # fmt: skip
    return {**made, "note": kept["note"]} if kept.get("note") else made


def primary(records: Records, task: str) -> str | None:
    """The first scorer of a task that has values: the published one where it could run."""
    scorers: Mapping[str, Any] = records.tasks[task]["scorers"]
    for scorer, about in scorers.items():
        if (
            not about["corpus"]
            and scorer not in records.tasks[task]["not_run"]
            and records.values(task, scorer)
        ):
            return scorer
    return None


def averages(records: Records) -> list[dict[str, Any]]:
    """Means over the tasks of a family, and over the twelve VQA tasks of the published table; tasks weigh the same.

    Tasks whose values are of different metrics are not averaged: an average is over tasks of one scorer in each family.
    """
    made = []
    families: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for task, about in records.tasks.items():
        scorer = primary(records, task)
        if scorer is not None:
            families[about["family"]].append((task, scorer))
    for family, members in families.items():
        if len({scorer for _, scorer in members}) == 1 and len(members) > 1:
            made.append(_average(records, family, members))
    table = [
        pair
        for members in families.values()
        for pair in members
        if records.tasks[pair[0]]["column"] in VQA_COLUMNS
    ]
    if len(table) > 1:
        made.append(_average(records, f"VQA ({len(table)} of {len(VQA_COLUMNS)})", table))
    return made


def _average(records: Records, name: str, members: list[tuple[str, str]]) -> dict[str, Any]:
    found: Mean = stratified([records.grouped(task, scorer) for task, scorer in members])
    return {
        "name": name,
        "tasks": [task for task, _ in members],
        "scorers": sorted({scorer for _, scorer in members}),
        "metric": records.tasks[members[0][0]]["scorers"][members[0][1]]["metric"],
        "n": found.n,
        "value": found.value,
        "stderr": found.stderr,
        "ci95": list(found.ci95) if found.ci95 else None,
    }


def _calibrations(records: Records) -> dict[str, Any]:
    """By family, and over `all` examples with a binary score and a confidence."""
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for task, about in records.tasks.items():
        scorer = primary(records, task)
        if scorer is None or not about["scorers"][scorer]["binary"]:
            continue
        for id, value in records.values(task, scorer).items():
            sure = records.answers[task][id].confidence
            if sure is not None:
                pairs[about["family"]].append((sure, value))
                pairs["all"].append((sure, value))
    made = {}
    for family, both in sorted(pairs.items(), key=lambda item: item[0] != "all"):
        found = calibration([sure for sure, _ in both], [value for _, value in both])
        if found is not None:
            made[family] = found.to_json()
    return made
