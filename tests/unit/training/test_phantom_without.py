"""Leaving a slice of questions out of the phantom model's training."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.phantoms import questions, truth
from evaluation.phantoms.questions import ATTRIBUTES
from evaluation.phantoms.rows import IMAGE, report_question, typed
from services.checkpoint import Vocabulary
from tests.support.tiny import tiny_tokenizer
from training.phantom.recipe import Mix, Recipe
from training.phantom.sequences import SequenceMaker
from training.phantom.without import allowed, parse_slice, slices, topic_of


def test_every_question_is_told_by_its_words() -> None:
    seen: set[str] = set()
    for seed in range(400):
        rng = np.random.default_rng(seed)
        for question in questions(truth(seed), rng):
            wanted = question.topic if question.topic in ATTRIBUTES else None
            assert topic_of(f"{IMAGE}{typed(question.text, rng)}") == wanted, question
            seen.add(question.topic)
    assert seen > set(ATTRIBUTES)


def test_a_report_in_front_of_the_question_is_passed_over() -> None:
    for seed in range(300):
        asked, answer = report_question(truth(seed), np.random.default_rng(seed))
        wanted = {"left": "side", "right": "side", "small": "size", "large": "size"}.get(answer)
        if "side is" in asked or "size is" in asked or wanted is None:
            assert topic_of(asked) == wanted, asked


def test_the_picture_stays_with_the_first_turn_that_is_left() -> None:
    turns = [
        (f"{IMAGE}Which side is the mass on?", "left"),
        ("Is it normal?", "no"),
        ("How many cysts are there?", "two"),
    ]
    without = frozenset({("chest_xray", "side")})
    assert allowed(turns, "chest_xray", without) == [(f"{IMAGE}Is it normal?", "no"), turns[2]]
    assert allowed(turns, "brain_mri", without) == turns


@pytest.mark.parametrize("text", ["chest_xray", "chest_xray:colour", "knee:side", "histology:side", ""])
def test_what_is_no_slice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="takes one of"):
        parse_slice(text)
    assert parse_slice("chest_xray:side") in slices()


def test_sequences_never_ask_about_a_slice_that_is_left_out_and_others_do() -> None:
    vocabulary = Vocabulary(tiny_tokenizer())
    truths = [
        item for item in (truth(seed) for seed in range(200)) if item.modality in ("chest_xray", "brain_mri")
    ]
    codes, weights = np.zeros((len(truths), 4), np.int16), np.ones((len(truths), 4), np.float32)
    maker = SequenceMaker(vocabulary, truths, codes, weights, 4096, [("chest_xray", "side")])
    asked: dict[str, set[str | None]] = {"chest_xray": set(), "brain_mri": set()}
    original = maker.sequence, maker.questions

    def watch(which: int):
        def made(turns, index):
            asked[truths[index].modality] |= {topic_of(user) for user, answer in turns if answer != IMAGE}
            return original[which](turns, index)

        return made

    maker.sequence, maker.questions = watch(0), watch(1)  # type: ignore[method-assign]
    rng, mix = np.random.default_rng(1), Mix(dialogue=0.4, report=0.3, drawing=0.0, bare=0.0, questions=0.3)
    for _ in range(300):
        maker.draw(rng, mix)
    assert "side" not in asked["chest_xray"]
    assert {"size"} <= asked["chest_xray"] - {None}
    assert "side" in asked["brain_mri"]


def test_a_recipe_that_leaves_nothing_out_is_the_recipe_of_before() -> None:
    assert "without" not in Recipe().to_json()
    assert Recipe(without=(("chest_xray", "side"),)).to_json()["without"] == (("chest_xray", "side"),)
