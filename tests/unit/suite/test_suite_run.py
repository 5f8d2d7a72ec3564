"""A scripted model behind a real endpoint gets the scores that arithmetic predicts; broken parts do not stop a run."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from PIL import Image

from evaluation.report.compare import compare
from evaluation.report.page import render, render_comparison
from evaluation.report.results import Records, build
from evaluation.scorers import Endpoint, Scorers, Tools
from evaluation.scorers.clip import Clip, load
from evaluation.suite.data import EvalData
from evaluation.suite.models import connect
from evaluation.suite.records import AnswerRecord, Run, answers_of, scores_of
from evaluation.suite.run import run_suite
from evaluation.suite.survey import Example, examples
from evaluation.tasks import all_tasks, chosen
from services.errors import ConfigurationError, InvalidInput, Unavailable
from tests.support.oracle import SURE, UNSURE, judge, oracle
from tests.unit.suite.conftest import COUNT

IDENTITY = {"data": {"digest": "d", "files": 1}, "model": "oracle"}
RIGHT = 0.75  # wrong on every fourth
FEATURES = "tests.unit.suite.test_suite_run:two_levels"


def two_levels(pictures: list[Image.Image]) -> np.ndarray:
    """The left and the right half's brightness, 0 to 1: features that are not the same number twice."""
    levels = [np.asarray(one.convert("L"), dtype=float) / 255 for one in pictures]
    return np.array(
        [[one[:, : one.shape[1] // 2].mean(), one[:, one.shape[1] // 2 :].mean()] for one in levels]
    )


async def run_on(
    url: str,
    data: Path,
    folder: Path,
    judge_url: str | None = None,
    tasks: list[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    endpoint = (
        Endpoint(judge_url, "judge", tries=2, wait_s=0.01, timeout_s=options.pop("timeout_s", 30))
        if judge_url
        else None
    )
    scorers = Scorers(Tools(endpoint, clip=options.pop("clip", None), features=FEATURES))
    retry = options.pop("retry_failed", False)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(scorers.close)
        run = Run(folder, IDENTITY, retry)
        stack.callback(run.close)
        model = await stack.enter_async_context(connect(url, timeout_s=30))
        await run_suite(EvalData.find(data), chosen(tasks), scorers, model, run, **options)
    return build(Records.read(folder))


def by_scorer(results: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(entry["task"], entry["scorer"]): entry for entry in results["results"]}


async def test_the_oracle_gets_what_arithmetic_predicts_in_every_task(
    phantom_data: Path, tmp_path: Path, clip_folder: Path
) -> None:
    with oracle(phantom_data) as (url, model), judge("honest") as (judge_url, _):
        results = await run_on(url, phantom_data, tmp_path / "run", judge_url, clip=clip_folder)
    assert set(model.asked.values()) == {1}
    found = by_scorer(results)
    for task in all_tasks().values():
        for scorer in task.scorers:
            entry = found[task.name, scorer]
            if entry.get("not_run"):
                assert scorer in ("radgraph", "chexbert"), entry
                assert entry["value"] is None
                continue
            assert entry["failed"] == 0, entry
            assert entry["n"] == (
                COUNT if task.name != "probe_contradiction" or scorer == "pair_right" else 2 * COUNT
            )
            if scorer in ("fid", "kid"):
                continue
            if scorer.startswith("clip"):
                expected = _cosine(clip_folder, phantom_data, tmp_path / "run", task.name, scorer)
                assert entry["value"] == pytest.approx(expected, abs=1e-5), entry
                continue
            if scorer == "judge_relative":  # 100 for the same words, 25 for others
                expected = 100 * RIGHT + 25 * (1 - RIGHT)
            elif scorer == "pair_right":  # examples 0, 4, 8, 12 are wrong: pairs 0, 2, 4, 6 of 8
                expected = 0.5
            elif scorer in ("rouge_l", "bleu"):
                expected = RIGHT * (100 if scorer == "bleu" else 1)
            else:
                expected = RIGHT
            slack = 0.06 * expected if scorer in ("rouge_l", "bleu") else 1e-9
            assert entry["value"] == pytest.approx(expected, abs=slack), entry
            if (
                scorer == all_tasks()[task.name].scorers[0]
                and task.name != "probe_contradiction"
                and scorer != "judge_relative"
            ):
                assert entry["stderr"] == pytest.approx((RIGHT * (1 - RIGHT) / (COUNT - 1)) ** 0.5), entry
                assert entry["ci95"][0] < RIGHT <= entry["ci95"][1]
    for name in ("pmc_oa", "quilt", "report"):
        expected = _frechet(phantom_data, tmp_path / "run", f"image_generation_{name}")
        assert found[f"image_generation_{name}", "fid"]["value"] == pytest.approx(expected, abs=1e-6)
    (average,) = [a for a in results["averages"] if a["name"] == "VQA (12 of 12)"]
    assert average["value"] == pytest.approx(RIGHT)
    # Right answers at 0.9, wrong ones at 0.6.
    ece = RIGHT * (1 - SURE) + (1 - RIGHT) * UNSURE
    assert results["calibration"]["closed"]["ece"] == pytest.approx(ece)
    assert results["calibration"]["all"]["risk_at_80"] == pytest.approx(1 - RIGHT)
    assert results["complete"]
    page = render(results, Records.read(tmp_path / "run").tasks)
    assert page.count("data:image/png;base64,") == 3
    assert "MedMax-7B" in page
    assert "99.5" in page
    assert "http://" not in page.replace(results["where"], "")
    assert "https://" not in page


def _pairs(data: Path, run: Path, task: str) -> list[tuple[AnswerRecord, Example]]:
    answers = {record.id: record for record in answers_of(run) if record.task == task}
    asked = [one for one in examples(EvalData.find(data), chosen([task]), None) if isinstance(one, Example)]
    return [(answers[one.row.id], one) for one in asked]


def _cosine(folder: Path, data: Path, run: Path, task: str, scorer: str) -> float:
    """Mean over the examples of what the model itself gives for a picture and a text, or for two pictures."""
    clip = load(folder)
    assert isinstance(clip, Clip)
    values = []
    for record, example in _pairs(data, run, task):
        drawn = clip.image(Image.open(run / "pictures" / record.pictures[0])) if record.pictures else None
        true = clip.image(Image.open(example.row.need_picture()))
        if scorer == "clip_image_text":
            values.append(true @ clip.text(record.text))
        else:
            assert drawn is not None
            values.append(drawn @ (true if scorer == "clip_image_image" else clip.text(example.row.prompt)))
    return float(np.mean(values))


def _frechet(data: Path, run: Path, task: str) -> float:
    """The distance as its definition says it, with a matrix square root."""
    pairs = _pairs(data, run, task)
    drawn = two_levels(
        [Image.open(run / "pictures" / record.pictures[0]).convert("RGB") for record, _ in pairs]
    )
    true = two_levels([Image.open(example.row.need_picture()).convert("RGB") for _, example in pairs])
    first, second = np.cov(drawn.T), np.cov(true.T)
    root = scipy.linalg.sqrtm(first @ second).real
    return float(((drawn.mean(0) - true.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


@pytest.mark.parametrize(
    ("mood", "failure"),
    [("status", "judge_unreachable"), ("hang", "judge_unreachable"), ("nonsense", "judge_unparseable")],
)
async def test_a_broken_judge_does_not_stop_a_run_and_its_failures_are_counted(
    phantom_data: Path, tmp_path: Path, mood: Any, failure: str
) -> None:
    with oracle(phantom_data) as (url, _), judge(mood) as (judge_url, _):
        results = await run_on(url, phantom_data, tmp_path / "run", judge_url, ["slake_open"], timeout_s=0.1)
    found = by_scorer(results)
    broken = found["slake_open", "judge_correct"]
    assert (broken["n"], broken["failed"], broken["value"]) == (0, COUNT, None)
    assert broken["failures"] == {failure: COUNT}
    assert found["slake_open", "vqa_match"]["value"] == RIGHT


async def test_a_judge_that_comes_back_is_asked_when_the_run_goes_on_and_the_model_is_not(
    phantom_data: Path, tmp_path: Path
) -> None:
    with oracle(phantom_data) as (url, model):
        with judge("status") as (judge_url, _):
            await run_on(url, phantom_data, tmp_path / "run", judge_url, ["slake_open"])
        with judge("honest") as (judge_url, seen):
            results = await run_on(url, phantom_data, tmp_path / "run", judge_url, ["slake_open"])
        assert by_scorer(results)["slake_open", "judge_correct"]["value"] == RIGHT
        assert (seen["asked"], sum(model.asked.values())) == (COUNT, COUNT)


async def test_failed_answers_are_counted_beside_the_value_and_asked_again_only_on_request(
    phantom_data: Path, tmp_path: Path
) -> None:
    with oracle(phantom_data, failing=frozenset({"slake_closed"})) as (url, model):
        results = await run_on(url, phantom_data, tmp_path / "run", tasks=["slake_closed", "pathvqa_closed"])
        entry = by_scorer(results)["slake_closed", "closed_rule"]
        assert (entry["n"], entry["failed"], entry["value"]) == (0, COUNT, None)
        assert entry["failures"] == {"answer_context_overflow": COUNT}
        assert by_scorer(results)["pathvqa_closed", "closed_rule"]["value"] == RIGHT
        assert results["failed_answers"] == {"context_overflow": COUNT}
        await run_on(url, phantom_data, tmp_path / "run", tasks=["slake_closed"])
        assert sum(model.asked.values()) == 2 * COUNT
        model.failing = frozenset()
        results = await run_on(url, phantom_data, tmp_path / "run", tasks=["slake_closed"], retry_failed=True)
        assert by_scorer(results)["slake_closed", "closed_rule"]["value"] == RIGHT


async def test_a_model_that_is_gone_ends_the_run_and_is_asked_again_later(
    phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.suite.models.RETRIES", 0)
    monkeypatch.setattr("evaluation.suite.run.GIVE_UP_AFTER", 0)
    with oracle(phantom_data) as (url, model):
        model.down = True
        with pytest.raises(Unavailable, match="no answer 4 times"):
            await run_on(url, phantom_data, tmp_path / "run", tasks=["closed"], parallel=2)
        model.down = False
        results = await run_on(url, phantom_data, tmp_path / "run", tasks=["slake_closed"])
    entry = by_scorer(results)["slake_closed", "closed_rule"]
    assert (entry["n"], entry["failed"]) == (COUNT, 0)


async def test_a_new_version_of_a_scorer_scores_again_and_of_a_task_asks_again(
    phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluation.scorers.rules import ClosedRule
    from evaluation.tasks import slake_closed

    run = tmp_path / "run"
    with oracle(phantom_data) as (url, model):
        await run_on(url, phantom_data, run, tasks=["slake_closed"])
        monkeypatch.setattr(ClosedRule, "version", 2)
        results = await run_on(url, phantom_data, run, tasks=["slake_closed"])
        assert sum(model.asked.values()) == COUNT
        assert by_scorer(results)["slake_closed", "closed_rule"]["version"] == 2
        assert Counter(score.scorer_version for score in scores_of(run)) == {1: COUNT, 2: COUNT}
        monkeypatch.setattr(slake_closed, "VERSION", 2)
        all_tasks.cache_clear()
        results = await run_on(url, phantom_data, run, tasks=["slake_closed"])
        assert sum(model.asked.values()) == 2 * COUNT
        assert by_scorer(results)["slake_closed", "closed_rule"]["n"] == COUNT
    all_tasks.cache_clear()


async def test_other_weights_or_other_data_do_not_mix_with_a_run(phantom_data: Path, tmp_path: Path) -> None:
    with oracle(phantom_data) as (url, model):
        await run_on(url, phantom_data, tmp_path / "run", tasks=["slake_closed"])
        model.digest = "other-weights"
        with pytest.raises(ConfigurationError, match="other-weights"):
            await run_on(url, phantom_data, tmp_path / "run", tasks=["pathvqa_closed"])
    with pytest.raises(InvalidInput, match="another data"):
        Run(tmp_path / "run", {**IDENTITY, "data": {"digest": "e", "files": 1}})


def test_two_processes_do_not_work_in_one_run(tmp_path: Path) -> None:
    run = Run(tmp_path, IDENTITY)
    with pytest.raises(InvalidInput, match="another process"):
        Run(tmp_path, IDENTITY)
    run.close()
    Run(tmp_path, IDENTITY).close()


async def test_a_torn_last_line_is_cut_off_and_its_example_asked_again(
    phantom_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with oracle(phantom_data) as (url, model):
        await run_on(url, phantom_data, run, tasks=["slake_closed"])
        with (run / "answers.jsonl").open("r+b") as file:
            file.truncate(file.seek(0, 2) - 7)
        results = await run_on(url, phantom_data, run, tasks=["slake_closed"])
        assert sum(model.asked.values()) == COUNT + 1
    assert len(list(answers_of(run))) == COUNT
    assert by_scorer(results)["slake_closed", "closed_rule"]["n"] == COUNT


async def test_runs_are_compared_example_by_example(phantom_data: Path, tmp_path: Path) -> None:
    with oracle(phantom_data) as (url, _):
        await run_on(url, phantom_data, tmp_path / "a", tasks=["slake_closed", "mm_out"])
        await run_on(url, phantom_data, tmp_path / "b", tasks=["slake_closed", "mm_out"], limit=7)
    lines = [json.loads(line) for line in (tmp_path / "b" / "scores.jsonl").read_text().splitlines()]
    for line in lines:  # the second run is right where the first was wrong
        line["value"] = 1.0
    (tmp_path / "b" / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = compare(Records.read(tmp_path / "a"), Records.read(tmp_path / "b"))
    assert found["same_data"]
    entries = {(entry["task"], entry["scorer"]): entry for entry in found["compared"]}
    closed = entries["slake_closed", "closed_rule"]
    assert (closed["n"], closed["only_in_first"], closed["lost"], closed["won"]) == (7, 1, 0, 2)
    assert closed["difference"] == pytest.approx(2 / 7)
    assert (closed["test"], closed["p"]) == ("McNemar (exact)", 0.5)
    assert entries["mm_out", "phantom_picture"]["test"] == "paired bootstrap"
    assert {entry["scorer"] for entry in found["left_out"]} == {"judge_relative", "clip_image_image"}
    page = render_comparison(found)
    assert "data:image/png;base64," in page
    assert "McNemar" in page


async def test_text_of_a_model_cannot_steer_the_page(tmp_path: Path, phantom_data: Path) -> None:
    with oracle(phantom_data, digest="<script>alert(1)</script>") as (url, _):
        results = await run_on(url, phantom_data, tmp_path / "run", tasks=["slake_closed"])
    assert "<script" not in render(results, Records.read(tmp_path / "run").tasks)
