"""Percentiles, rows and ratios of the engine benchmark."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.engine import figures
from loadtests.engine.figures import Row, percentile
from loadtests.engine.jobs import Job, Objective, Outcome, Request, Sample, stepwise, texts_at_once
from loadtests.engine.results import PROMPT_WORK, Results
from loadtests.engine.works import ONE, OURS, SERIAL, Work
from tests.support.benchmark import ROW

NAME = Row("text", 8, "ours", "phantom", "float32")


def outcome(tokens: int, wall_s: float, pictures: int = 0, read: int | None = None) -> Outcome:
    return Outcome(wall_s, [Sample(10.0, [1.0, 2.0, 3.0], tokens, pictures)], read)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1))
def test_percentiles_are_numpys(values: list[float], share: float) -> None:
    assert percentile(values, share) == pytest.approx(float(np.quantile(values, share)), abs=1e-6)


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 0.5) is None


def test_a_row_holds_the_median_rate_and_the_percentiles_of_all_answers() -> None:
    row = figures.row(NAME, [outcome(100, 1.0), outcome(100, 2.0), outcome(100, 4.0)])
    assert (row.output_tokens_per_s, row.runs) == (50.0, 3)
    assert (row.ttft_p50_ms, row.ttft_p99_ms, row.itl_p50_ms) == (10.0, 10.0, 2.0)
    assert row.pictures_per_s is None
    assert row.goodput_rps is None


def test_a_row_without_outcomes_has_no_figures() -> None:
    assert figures.row(NAME, []) == NAME


def test_a_search_that_no_rate_met_is_a_goodput_of_nothing_and_not_a_missing_row() -> None:
    row = figures.row(NAME, [], goodput=[0.0, 0.0])
    assert (row.goodput_rps, row.runs, row.output_tokens_per_s) == (0.0, 2, None)


def test_a_ratio_is_of_rounds_side_by_side() -> None:
    ratio = figures.ratio("text", 8, "vllm", [(10.0, 5.0), (9.0, 3.0), (4.0, 4.0)])
    assert ratio is not None
    assert (ratio.ratio_median, ratio.ratio_min, ratio.ratio_max) == (2.0, 1.0, 3.0)
    assert figures.ratio("text", 8, "vllm", [(1.0, 0.0)]) is None


def test_prompt_work_leaves_out_what_the_model_had_drawn_itself() -> None:
    # 40 prompt tokens; of 4 drawn, the last is never read.
    assert figures.prompt_tokens_read(outcome(4, 1.0, read=43)) == 40


@pytest.mark.parametrize(
    ("ttft_ms", "gap_ms", "complete", "met"),
    [
        (100, 5, True, True),
        (2001, 5, True, False),
        (100, 101, True, False),
        (100, 5, False, False),
    ],
)
def test_the_objective_bounds_first_tokens_and_gaps(
    ttft_ms: float, gap_ms: float, complete: bool, met: bool
) -> None:
    job = Outcome(1.0, [Sample(ttft_ms, [gap_ms], 2)], complete=complete)
    assert figures.meets(job, Objective(ttft_ms=2000, itl_ms=100)) is met


def test_steps_become_samples_in_milliseconds() -> None:
    (sample,) = stepwise(10.0, [[10.5, 10.6, 10.8]])
    assert sample.ttft_ms == pytest.approx(500)
    assert sample.gaps_ms == pytest.approx([100, 200])
    assert sample.tokens == 3


def test_jobs_and_outcomes_survive_the_pipe() -> None:
    job = Job([Request([1, 2], 3, arrival_s=0.5)], in_flight=1, give_up=Objective())
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
    result = outcome(3, 1.0, read=7)
    assert Outcome.from_json(json.loads(json.dumps(result.to_json()))) == result


@pytest.mark.parametrize(
    "job",
    [
        Job([Request([1], picture=True)]),
        Job([Request([1], 3), Request([1], 4)]),
        Job([Request([1], 3)], in_flight=1),
    ],
)
def test_peers_refuse_what_is_not_text_at_once(job: Job) -> None:
    with pytest.raises(ValueError, match="peers"):
        texts_at_once(job)


def test_results_as_json_have_the_agreed_fields_and_tell_who_did_not_run() -> None:
    results = Results("float32")
    text, questions = Work("text", 8), Work("questions", 10)
    for round_, speed in enumerate((1.0, 2.0)):
        results.cell(text, "phantom", OURS).outcomes[round_] = outcome(100, speed)
        results.cell(text, "phantom", "transformers-generate").outcomes[round_] = outcome(100, speed * 3)
        results.cell(questions, "phantom", OURS).outcomes[round_] = outcome(1, 1.0, read=60)
        results.cell(questions, "phantom", ONE).outcomes[round_] = outcome(1, 1.0, read=50)
        results.cell(questions, "phantom", SERIAL).outcomes[round_] = outcome(1, 2.0, read=500)
    results.cell(text, "phantom", "vllm").not_run = "no environment"
    values = results.to_json({"cores": 2}, {"python": "3"})
    assert set(values) == {"machine", "versions", "rows", "ratios"}
    assert [(row["engine"], row["runs"]) for row in values["rows"] if row["work"] == "text"] == [
        ("ours", 2),
        ("transformers-generate", 2),
        ("vllm", 0),
    ]
    for row in values["rows"]:
        assert list(row) == ROW
    ratios = {(ratio["work"], ratio["ours_over"]): ratio for ratio in values["ratios"]}
    assert ratios["text", "transformers-generate"] == {
        "work": "text",
        "callers": 8,
        "ours_over": "transformers-generate",
        "ratio_median": pytest.approx(3.0),
        "ratio_min": pytest.approx(3.0),
        "ratio_max": pytest.approx(3.0),
    }
    assert ratios["questions", PROMPT_WORK]["ratio_median"] == pytest.approx(1.2)
    assert ratios["questions", SERIAL]["ratio_median"] == pytest.approx(2.0)
    assert results.failures({"vllm": "0.32.0"}) == {"vllm": "0.32.0; not run: no environment"}
