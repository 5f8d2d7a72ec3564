"""Whether a candidate may take the place of the model in service. Pure: comparisons in, a decision with its reasons out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import sqrt
from typing import Any

from annotation.loop.settings import PromoteSettings

_Z95 = 1.959964


@dataclass(frozen=True)
class Decided:
    """why: one line for each reason; numbers and names of tasks alone."""

    promote: bool
    why: str
    scores: dict[str, Any]


def decide(compared: Sequence[dict[str, Any]], policy: PromoteSettings) -> Decided:
    """By the target's mean gain, whose interval must lie above `min_gain`, and by what any other task lost.

    Args:
        compared: documents of `medmax eval compare`, second = the candidate. Every score counts: higher is better, and
            differences are shares of the score's scale.
    """
    entries = [
        _as_share(entry)
        for each in compared
        for entry in each["compared"]
        if entry["n"] >= policy.min_examples
    ]
    few = sum(len(each["compared"]) for each in compared) - len(entries)
    targets = [entry for entry in entries if not policy.target or _fits(entry, policy.target)]
    lines: list[str] = []
    good = bool(targets)
    if targets:
        gain, low, high = _mean(targets)
        improved = low > policy.min_gain
        good = improved
        lines.append(
            f"target ({len(targets)} of {len(entries)} tasks): {gain:+.3f}, 95 % {low:+.3f} to {high:+.3f}: "
            + ("improved" if improved else f"not shown to lie above {policy.min_gain:+.3f}")
        )
    else:
        gain = low = high = 0.0
        lines.append(f"no target task with {policy.min_examples} examples or more was compared")
    for entry in entries:
        if policy.target and entry in targets:
            continue
        if (sentence := _worse(entry, policy)) is not None:
            good = False
            lines.append(sentence)
    if good:
        lines.append("nothing else got worse than its budget")
    if few:
        lines.append(f"{few} scores rest on fewer than {policy.min_examples} examples and decided nothing")
    scores = {
        "target": {"gain": gain, "ci95": [low, high], "tasks": len(targets)},
        "tasks": [
            {
                key: entry[key]
                for key in ("task", "scorer", "metric", "n", "first", "second", "difference", "ci95")
            }
            for each in compared
            for entry in each["compared"]
        ],
    }
    return Decided(good, "\n".join(lines)[:4_000], scores)


def _as_share(entry: dict[str, Any]) -> dict[str, Any]:
    scale = entry.get("scale", 1.0)
    return entry | {
        "difference": entry["difference"] / scale,
        "stderr": entry["stderr"] and entry["stderr"] / scale,
        "ci95": entry["ci95"] and [bound / scale for bound in entry["ci95"]],
    }


def _mean(entries: Sequence[dict[str, Any]]) -> tuple[float, float, float]:
    """Of tasks that weigh the same: mean difference, and its interval as if they were independent."""
    gain = sum(entry["difference"] for entry in entries) / len(entries)
    error = sqrt(sum((entry["stderr"] or 0) ** 2 for entry in entries)) / len(entries)
    return gain, gain - _Z95 * error, gain + _Z95 * error


def _worse(entry: dict[str, Any], policy: PromoteSettings) -> str | None:
    budget = next((value for name, value in policy.budgets.items() if _fits(entry, (name,))), policy.budget)
    low, high = entry["ci95"] or (entry["difference"], entry["difference"])
    bound = low if policy.rule == "proven" else high
    if bound >= -budget:
        return None
    word = "may be" if policy.rule == "proven" else "is"
    return (
        f"{entry['task']} · {entry['scorer']} {word} worse than its budget of {budget:.3f}: {entry['difference']:+.3f}, "
        f"95 % {low:+.3f} to {high:+.3f} (n {entry['n']})"
    )


def _fits(entry: dict[str, Any], patterns: Sequence[str]) -> bool:
    names = (entry["task"], f"{entry['task']}/{entry['scorer']}")
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)
