"""Two runs on the same examples: what changed, and whether chance would do as much."""

from __future__ import annotations

from typing import Any

from evaluation.report.results import Records
from evaluation.report.statistics import holm, mcnemar, paired


def compare(first: Records, second: Records) -> dict[str, Any]:
    """For each task and scorer of both runs, over the examples that both answered: second − first.

    Binary scores are tested by McNemar's exact test, others by the paired bootstrap; `p_holm` is adjusted for the number of
    tests. Scores of different versions are not compared; `left_out` says what was not, and why.
    """
    compared: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    for task, about in second.tasks.items():
        for scorer, description in about["scorers"].items():
            reason = _unlike(first, task, scorer, about, description)
            before, after = first.values(task, scorer), second.values(task, scorer)
            ids = sorted(before.keys() & after.keys())
            if reason is None and not ids:
                reason = "of the whole task" if description["corpus"] else "no example has a value in both"
            if reason is not None:
                left_out.append({"task": task, "scorer": scorer, "reason": reason})
                continue
            a, b = [before[id] for id in ids], [after[id] for id in ids]
            difference, p = paired(a, b, [second.answers[task][id].group for id in ids])
            entry: dict[str, Any] = {
                "task": task, "metric": description["metric"], "scorer": scorer, "version": description["version"],
                "scale": description.get("scale", 1.0), "n": len(ids), "only_in_first": len(before) - len(ids), "only_in_second": len(after) - len(ids),
                "first": sum(a) / len(a), "second": sum(b) / len(b), "difference": difference.value,
                "stderr": difference.stderr, "ci95": list(difference.ci95) if difference.ci95 else None,
                "test": "paired bootstrap", "p": p,
            }  # fmt: skip
            if description["binary"]:
                lost, won, p = mcnemar(a, b)
                entry |= {"test": "McNemar (exact)", "p": p, "lost": lost, "won": won}
            compared.append(entry)
    for entry, adjusted in zip(compared, holm([entry["p"] for entry in compared]), strict=True):
        entry["p_holm"] = adjusted
    return {
        "first": _named(first),
        "second": _named(second),
        "same_data": first.facts.get("data") == second.facts.get("data"),
        "compared": compared,
        "left_out": left_out,
    }


def _unlike(first: Records, task: str, scorer: str, about: Any, description: Any) -> str | None:
    other = first.tasks.get(task)
    if other is None:
        return "the first run has no such task"
    if other["version"] != about["version"]:
        return f"versions {other['version']} and {about['version']} of the task"
    known = other["scorers"].get(scorer)
    if known is None or known["version"] != description["version"]:
        return "another version of the scorer in the first run"
    return None


def _named(records: Records) -> dict[str, Any]:
    return {
        "run": records.folder.name,
        "model": records.facts.get("weights"),
        "where": records.facts.get("where"),
    }
