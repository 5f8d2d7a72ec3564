"""Scorers against rules, closed forms and the libraries' own figures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evaluation.phantoms import caption, draw
from evaluation.scorers import Scorers, Tools
from evaluation.scorers.core import Case
from evaluation.scorers.distribution import frechet, jackknife, kernel_distance
from evaluation.scorers.judge import Endpoint, JudgeCorrect, JudgeRelative
from evaluation.scorers.pixels import Features
from evaluation.scorers.rules import normalise
from evaluation.suite.example import Answer, Score, Truth
from services.errors import ConfigurationError
from tests.support.oracle import judge


async def value(
    name: str, truth: Truth | str, text: str = "", tools: Tools | None = None, **more: object
) -> float | None:
    truth = Truth(truth) if isinstance(truth, str) else truth
    return (await Scorers(tools or Tools()).each[name].score(truth, Answer(text, **more))).value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("truth", "said", "right"),
    [
        ("yes", "Yes", 1),
        ("yes", "yes.", 1),
        ("no", "No", 1),
        ("yes", "yes or no", 0),
        ("no", "", 0),
        ("yes", "maybe", 0),
        ("no", "not", 1),
    ],
)
async def test_the_closed_rule_is_the_published_one(truth: str, said: str, right: int) -> None:
    assert await value("closed_rule", truth, said) == right


async def test_exact_means_every_character() -> None:
    assert await value("exact", "Left lung", " Left lung\n") == 1
    assert await value("exact", "Left lung", "left lung") == 0


@pytest.mark.parametrize(("said", "right"), [("B", 1), (" b\n", 1), ("B)", 0), ("A", 0), ("", 0)])
async def test_the_letter_must_be_alone(said: str, right: int) -> None:
    assert await value("mcq_rule", "B", said) == right


@pytest.mark.parametrize(
    ("text", "same"),
    [("The left lung.", "left lung"), ("Two", "2"), ("a well-defined mass!", "well-defined mass"), ("3.5 cm", "3.5 cm."),
     ("None", "0"), ("X-Ray", "x-ray"), ("  An  apple ", "apple")],
)  # fmt: skip
def test_vqa_normalisation(text: str, same: str) -> None:
    assert normalise(text) == normalise(same)


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


async def test_rouge_and_bleu_of_equal_and_of_foreign_texts() -> None:
    words = "a large right pleural effusion"
    assert await value("rouge_l", words, words) == pytest.approx(1)
    assert await value("bleu", words, words) == pytest.approx(100)
    assert await value("rouge_l", words, "nothing") == 0
    # LCS 2 of 4 and 2 words: P 1, R 1/2, F 2/3.
    assert await value("rouge_l", "one two three four", "one two") == pytest.approx(2 / 3)


def test_the_frechet_distance_of_normal_distributions_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((400, 3))
    base = (base - base.mean(0)) @ np.linalg.inv(
        np.linalg.cholesky(np.cov(base.T))
    ).T  # mean 0, covariance 1 exactly
    assert frechet(base, base) == pytest.approx(0, abs=1e-9)
    # N(0, 1) and N(m, diag s²): |m|² + Σ (1 − s)².
    moved = base * np.array([2.0, 1.0, 0.5]) + np.array([3.0, 0.0, -1.0])
    assert frechet(moved, base) == pytest.approx(10 + 1 + 0 + 0.25, rel=1e-9)
    assert frechet(base, moved) == pytest.approx(frechet(moved, base))
    assert frechet(base[:, :1], base[:, :1] * 3) == pytest.approx(4)


def test_the_kernel_distance_is_the_unbiased_estimate() -> None:
    # d = 1: k(x, y) = (x·y + 1)³. Drawn {0, 0}, true {1, 1}: 1 + 8 − 2·1.
    zeros, ones = np.zeros((2, 1)), np.ones((2, 1))
    assert kernel_distance(zeros, ones) == pytest.approx(1 + 8 - 2)
    rng = np.random.default_rng(1)
    same = [kernel_distance(rng.standard_normal((40, 2)), rng.standard_normal((40, 2))) for _ in range(200)]
    assert abs(np.mean(same)) < 4 * np.std(same) / 200**0.5  # unbiased: 0 in the mean
    assert jackknife(kernel_distance, zeros, ones) is None


def _png(path: Path, level: int) -> Path:
    Image.new("RGB", (8, 8), (level, level, level)).save(path)
    return path


class Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))[:, :2]


def one_number(pictures: list[Image.Image]) -> list[float]:
    return [1.0 for _ in pictures]


def mean_level(pictures: list[Image.Image]) -> np.ndarray:
    return np.array([np.asarray(one, dtype=float).mean((0, 1))[:2] / 255 for one in pictures])


@pytest.mark.parametrize("kind", ["torchscript", "callable"])
def test_fid_and_kid_read_pictures_through_the_given_extractor(tmp_path: Path, kind: str) -> None:
    source = f"{__name__}:mean_level"
    if kind == "torchscript":
        source = str(tmp_path / "mean.pt")
        torch.jit.script(Mean()).save(source)
    drawn = [_png(tmp_path / f"d{i}.png", level) for i, level in enumerate((0, 51))]
    true = [_png(tmp_path / f"t{i}.png", level) for i, level in enumerate((102, 153))]
    cases = [Case(str(i), "", d, t, None) for i, (d, t) in enumerate(zip(drawn, true, strict=True))]
    cases.append(Case("no picture", "", None, true[0], None))
    scorers = Scorers(Tools(features=source)).corpus
    assert scorers["fid"].missing() is None
    found = scorers["fid"].estimate(cases)
    assert found.value == pytest.approx(2 * 0.4**2, abs=1e-6)  # same spread, means 0.4 apart in two features
    assert (found.n, found.failed) == (2, 1)
    assert "biased" in found.note
    kernel = scorers["kid"].estimate(cases)
    x, y = np.array([[0, 0], [0.2, 0.2]]), np.array([[0.4, 0.4], [0.6, 0.6]])
    assert kernel.value == pytest.approx(kernel_distance(x, y), abs=1e-5)


def test_an_extractor_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    assert Features(None).missing() == "no feature extractor was given (--features)"
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    assert "no TorchScript file" in str(Features(str(tmp_path / "bad.pt")).missing())
    assert "cannot be imported" in str(Features("no.such:thing").missing())
    with pytest.raises(ConfigurationError, match=r"not \[n, d\]"):
        Features(f"{__name__}:one_number").of([_png(tmp_path / "a.png", 1)])


async def test_a_caption_is_scored_by_its_slots_and_a_picture_by_the_analyser() -> None:
    phantom = draw(1_000_000_007, "chest_xray")
    shown = {
        "seed": phantom.seed,
        "modality": phantom.modality,
        "findings": [f.__dict__ for f in phantom.findings],
    }
    truth = Truth(caption(phantom), phantom=shown)
    file = io.BytesIO()
    Image.fromarray(phantom.picture).save(file, "PNG")
    assert await value("phantom_answer", truth, caption(phantom)) == 1
    assert await value("phantom_answer", truth, f"An effusion is fluid. {caption(phantom)}") == 1
    assert await value("phantom_answer", truth, "Nothing of the kind.") == 0
    assert await value("phantom_picture", truth, pictures=(file.getvalue(),)) == 1
    assert await value("phantom_picture", truth) == 0
    broken = await Scorers().each["phantom_picture"].score(truth, Answer(pictures=(b"no picture",)))
    assert broken.failure == "no_picture"


@pytest.mark.parametrize(
    ("words", "verdict"),
    [("Correctness: 1", 1), ("correctness: **0**", 0), ("Correctness: 1\nCorrectness: 0", None), ("Yes, it is right", None),
     ("Correctness: 10", None), ("Correctness: 0.5", None), ("", None)],
)  # fmt: skip
def test_verdicts_of_correctness(words: str, verdict: float | None) -> None:
    assert JudgeCorrect(None).read(words) == verdict


@pytest.mark.parametrize(
    ("words", "verdict"),
    [("8 6\nBecause", 75), ("10 10", 100), ("8/10 6/10", 75), ("8, 4", 50), ("0 5", None), ("8", None), ("good", None), ("8 11", None), ("", None)],
)  # fmt: skip
def test_relative_verdicts(words: str, verdict: float | None) -> None:
    assert JudgeRelative(None).read(words) == verdict


async def ask(mood: str, count: int, **options: object) -> tuple[list[Score], int]:
    with judge(mood) as (url, seen):  # type: ignore[arg-type]
        endpoint = Endpoint(url, "judge", wait_s=0.01, tries=2, **options)  # type: ignore[arg-type]
        scorer = JudgeCorrect(endpoint)
        scores = [await scorer.score(Truth("left", question="Side?"), Answer("left")) for _ in range(count)]
        await endpoint.close()
        return scores, seen["asked"]


async def test_a_judge_that_answers_is_believed() -> None:
    scores, asked = await ask("honest", 2)
    assert [score.value for score in scores] == [1, 1]
    assert asked == 2


async def test_a_judge_that_is_down_is_tried_again_and_then_left_alone() -> None:
    scores, asked = await ask("status", 12, give_up_after=3)
    assert {score.failure for score in scores} == {"judge_unreachable"}
    assert asked == 3 * 2


async def test_a_judge_that_hangs_or_talks_nonsense_gives_failures_not_values() -> None:
    hanging, _ = await ask("hang", 2, timeout_s=0.1, give_up_after=1)
    assert {score.failure for score in hanging} == {"judge_unreachable"}
    nonsense, asked = await ask("nonsense", 2)
    assert {score.failure for score in nonsense} == {"judge_unparseable"}
    assert asked == 2
    assert nonsense[0].note == "I would rather not say."
    markup, _ = await ask("no_json", 1)
    assert markup[0].failure == "judge_unreachable"


async def test_clip_cosines_are_the_librarys_own(clip_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, CLIPModel

    rng = np.random.default_rng(0)
    files = []
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
        files.append(tmp_path / f"{name}.png")
    model, tokenizer = CLIPModel.from_pretrained(clip_folder), AutoTokenizer.from_pretrained(clip_folder)
    pixels = torch.stack(
        [(torch.tensor(np.asarray(Image.open(f))).permute(2, 0, 1) / 255 - 0.5) / 0.5 for f in files]
    )
    with torch.inference_mode():
        out = model(**tokenizer(["left mass"], return_tensors="pt"), pixel_values=pixels)
    image, text = out.image_embeds, out.text_embeds
    tools = Tools(clip=clip_folder)
    drawn = files[1].read_bytes()
    assert Scorers(tools).each["clip_image_text"].missing() is None
    truth = Truth("", question="left mass", picture=files[0])
    assert await value("clip_image_text", truth, "left mass", tools) == pytest.approx(
        float(image[0] @ text[0]), abs=1e-5
    )
    assert await value("clip_text_image", truth, "", tools, pictures=(drawn,)) == pytest.approx(
        float(image[1] @ text[0]), abs=1e-5
    )
    assert await value("clip_image_image", truth, "", tools, pictures=(drawn,)) == pytest.approx(
        float(image[0] @ image[1]), abs=1e-5
    )
    assert await value("clip_image_image", truth, "", tools) is None


def test_a_folder_that_is_no_clip_model_says_so(tmp_path: Path) -> None:
    assert "holds neither" in str(Scorers(Tools(clip=tmp_path)).each["clip_image_text"].missing())


def test_what_is_not_given_or_not_installed_is_named() -> None:
    scorers = Scorers()
    assert scorers.each["judge_correct"].missing() == "no judge was given (--judge-url, --judge-model)"
    assert scorers.each["clip_image_image"].missing() == "no CLIP-type model was given (--clip)"
    assert scorers.corpus["fid"].missing() == "no feature extractor was given (--features)"
    for name, package in (("radgraph", "radgraph"), ("chexbert", "f1chexbert")):
        reason = scorers.each[name].missing()
        assert reason is None or package in reason
