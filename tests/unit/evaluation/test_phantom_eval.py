"""The evaluation command: what it asks, how it counts, and that it runs the serving path."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.phantom_eval import SCORES, Outcome, Report, evaluate
from services.config import Settings
from services.gateway.local import local_assistant
from tests.support.tiny import tiny_checkpoint


def outcome(score: str, right: int, total: int, seed: int = 0, modality: str = "fundus") -> Outcome:
    return Outcome(score, seed, modality, "topic", "asked", "expected", "answer", right, total)


def test_fractions_weigh_parts_and_errors_shrink_with_the_count() -> None:
    few = Report(1, 4, [outcome("vqa_open", right, 1) for right in (1, 0, 1, 1)])
    assert few.fraction("vqa_open") == 0.75
    assert few.stderr("vqa_open") == pytest.approx((0.25 * 0.75 / 3) ** 0.5)
    many = Report(1, 400, few.outcomes * 100)
    assert many.stderr("vqa_open") == pytest.approx((0.25 * 0.75 / 399) ** 0.5)
    parts = Report(1, 2, [outcome("caption_slots", 1, 1), outcome("caption_slots", 0, 3)])
    assert parts.fraction("caption_slots") == 0.25
    assert parts.fraction("vqa_mcq") is None


def test_scores_are_split_by_modality() -> None:
    report = Report(
        1, 2, [outcome("vqa_mcq", 1, 1, modality="fundus"), outcome("vqa_mcq", 0, 1, modality="histology")]
    )
    result = report.to_json()
    assert result["per_modality"]["fundus"]["vqa_mcq"] == 1.0
    assert result["per_modality"]["histology"]["vqa_mcq"] == 0.0
    assert result["counts"]["vqa_mcq"] == 2


async def test_every_phantom_is_asked_everything_through_the_assistant(tmp_path: Path) -> None:
    settings = Settings(checkpoint=tiny_checkpoint(tmp_path / "tiny"), store=False, threads=1)
    seen: list[int] = []
    async with local_assistant(settings) as assistant:
        report = await evaluate(assistant, 5, 3, progress=lambda done, total: seen.append(done))
    result = report.to_json()
    assert seen == [1, 2, 3]
    assert result["counts"] == dict.fromkeys(SCORES, 3)
    assert result["failed"] == 0
    assert set(result["scores"]) == set(SCORES)
    assert all(0 <= value <= 1 for value in result["scores"].values())
    assert 0 <= result["analyser_on_truth"] <= 1
