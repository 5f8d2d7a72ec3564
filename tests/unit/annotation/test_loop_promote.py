"""Promotion: by the figures, with intervals; and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotation.loop import pointer
from annotation.loop.context import Loop
from annotation.loop.settings import PromoteSettings
from annotation.loop.steps import evaluate, promote
from annotation.loop.verdict import decide
from annotation.store import NotAllowed, Status, What
from services.errors import NotFound, Unavailable
from tests.unit.annotation.loop_samples import loop_in


def entry(task: str, difference: float, stderr: float = 0.01, n: int = 100, **fields: Any) -> dict[str, Any]:
    return {
        "task": task, "scorer": "exact", "metric": "accuracy", "n": n, "first": 0.5, "second": 0.5 + difference,
        "difference": difference, "stderr": stderr, "ci95": [difference - 2 * stderr, difference + 2 * stderr], **fields,
    }  # fmt: skip


def decided(*entries: dict[str, Any], **policy: Any) -> tuple[bool, str]:
    found = decide([{"compared": list(entries)}], PromoteSettings(target=["side*"], **policy))
    return found.promote, found.why


def test_a_target_that_improves_and_nothing_worse_is_promoted() -> None:
    good, why = decided(entry("side", 0.2), entry("size", 0.01))
    assert good
    assert "improved" in why
    assert "nothing else got worse" in why


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([entry("side", 0.02, stderr=0.02)], "not shown"),
        ([entry("side", 0.2), entry("size", -0.1)], "size"),
        ([entry("side", 0.2), entry("size", 0.0, stderr=0.05)], "may be worse"),
        ([entry("side", 0.2, n=3)], "no target"),
        ([entry("size", 0.2)], "no target"),
        ([], "no target"),
    ],
)
def test_anything_else_is_refused_with_the_reason(entries: list[dict[str, Any]], says: str) -> None:
    good, why = decided(*entries)
    assert not good
    assert says in why


def test_the_plausible_rule_refuses_only_what_chance_cannot_explain() -> None:
    wide = entry("size", -0.03, stderr=0.05)
    assert not decided(entry("side", 0.2), wide)[0]
    assert decided(entry("side", 0.2), wide, rule="plausible")[0]
    assert not decided(entry("side", 0.2), entry("size", -0.3, stderr=0.05), rule="plausible")[0]


def test_a_tasks_own_budget_comes_before_the_general_one() -> None:
    loss = entry("size", -0.08)
    assert not decided(entry("side", 0.2), loss)[0]
    assert decided(entry("side", 0.2), loss, budgets={"siz*": 0.2})[0]


def test_scores_of_a_hundred_points_are_measured_by_the_same_budget() -> None:
    points = entry("size", -1.5, stderr=0.2, scorer="bleu", scale=100.0)
    assert decided(entry("side", 0.2), points, budget=0.02)[0]
    good, why = decided(entry("side", 0.2), points, budget=0.01)
    assert not good
    assert "size · bleu may be worse than its budget of 0.010: -0.015" in why


def candidate(loop: Loop, name: str, difference: float) -> Path:
    """A trained, evaluated candidate on what is in service now; its figures are made up, its folder is real."""
    import json

    folder = loop.folder / "models" / name
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "base.json").write_text(json.dumps({"base": str(loop.checkpoint.absolute())}))
    (folder / evaluate.COMPARED).write_text(json.dumps([{"compared": [entry("side", difference)]}]))
    loop.store.versions.candidate(name, path=str((folder / "checkpoint").absolute()))
    return folder / "checkpoint"


def test_current_follows_promotions_and_the_way_back(tmp_path: Path) -> None:
    log = tmp_path / "rolled"
    command = ["sh", "-c", f'readlink "$MEDMAX_CHECKPOINT" >> {log}']
    with loop_in(tmp_path, promote={"roll_out": command}) as loop:
        promote.run(loop)
        assert pointer.path(loop).resolve() == loop.base.checkpoint.resolve()
        assert not log.exists()
        first = candidate(loop, "first", 0.2)
        assert promote.run(loop).said["status"] == "promoted"
        second = candidate(loop, "second", 0.3)
        refused = candidate(loop, "third", -0.3)
        promote.run(loop)
        assert pointer.path(loop).resolve() == second.resolve()
        states = {each.id: each.status for each in loop.store.versions.all(What.MODEL)}
        assert states == {"first": Status.RETIRED, "second": Status.PROMOTED, "third": Status.REFUSED}
        assert promote.rollback(loop, "worse in practice") == "first"
        assert pointer.path(loop).resolve() == first.resolve()
        assert promote.rollback(loop, "that one too") == loop.base.checkpoint.name
        assert pointer.path(loop).resolve() == loop.base.checkpoint.resolve()
        with pytest.raises(NotFound):
            promote.rollback(loop, "once more")
        with pytest.raises(NotAllowed):
            promote.by_hand(loop, "third", "I like it", "me")
        promote.by_hand(loop, "second", "it was fine", "me")
        assert pointer.path(loop).resolve() == second.resolve()
        said = [Path(line).parent.name for line in log.read_text().splitlines()]
        assert said == ["first", "second", "first", loop.base.checkpoint.parent.name, "second"]
        assert refused.exists()


def test_a_roll_out_that_fails_is_tried_again(tmp_path: Path) -> None:
    flag = tmp_path / "ready"
    with loop_in(tmp_path, promote={"roll_out": ["test", "-e", str(flag)]}) as loop:
        candidate(loop, "first", 0.2)
        with pytest.raises(Unavailable):
            promote.run(loop)
        serving = loop.store.versions.serving()
        assert serving is not None
        assert serving.id == "first"
        flag.touch()
        assert promote.run(loop).said.get("rolled_out")
        assert not promote.run(loop).said.get("rolled_out")
