"""Questions, captions and rows: everything said follows from the truth."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluation.phantoms import (
    CATALOGUE,
    FAMILIES,
    Finding,
    Question,
    Truth,
    answer_matches,
    caption,
    describe,
    draw,
    parse_caption,
    questions,
    rows,
    score_caption,
    slots,
    truth,
)
from evaluation.phantoms.dataset import write_dataset
from evaluation.phantoms.questions import (
    CLOSED,
    LETTERS,
    MCQ,
    OPEN,
    TYPES,
    balanced,
    closed_questions,
    even_answers,
)
from evaluation.phantoms.rows import END_OF_TURN, IMAGE, texts

NUMBERS = {"none": 0, "one": 1, "two": 2, "three": 3}
seeds = st.integers(0, 10**12)


def asked_about(shown: Truth, text: str) -> tuple[str, Finding | None]:
    """The kind that a question names (the longest name or synonym in it), and that finding if it is there."""
    names = {
        name: kind.name
        for kind in CATALOGUE[shown.modality].kinds
        for name in (kind.name, kind.plural, *kind.synonyms)
    }
    name = max((name for name in names if re.search(rf"\b{re.escape(name)}\b", text)), key=len)
    return names[name], shown.finding(names[name])


def derived(shown: Truth, question: Question) -> str:
    """The answer to a question as read from its words and the truth alone."""
    known = CATALOGUE[shown.modality]
    text = question.text.split("\n")[0]
    if question.topic == "normal":
        return "yes" if shown.normal == ("normal" in text.split() or "normal?" in text) else "no"
    if question.topic == "modality":
        if question.type != CLOSED:
            return known.name
        return "yes" if any(name in text for name in (known.name, *known.synonyms)) else "no"
    if question.topic == "organ":
        return known.organ
    if question.topic == "abnormality":
        present = [kind.name for kind in known.kinds if shown.finding(kind.name)]
        return " and ".join(present) or "no abnormality"
    kind, finding = asked_about(shown, text)
    if question.topic == "presence":
        return "yes" if finding else "no"
    if question.type != CLOSED and finding is None:
        return "none" if question.topic == "count" else f"there is no {kind}"
    value = getattr(finding, question.topic) if finding else None
    if question.type != CLOSED:
        return next(word for word, n in NUMBERS.items() if n == value) if question.topic == "count" else value
    words = {word: NUMBERS.get(word, word) for word in re.findall(r"\w+", text)}
    options = {"side": ("left", "right"), "size": ("small", "large"), "count": (1, 2, 3)}[question.topic]
    (claimed,) = (meant for meant in words.values() if meant in options)
    return "yes" if value == claimed else "no"


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_every_answer_follows_from_the_truth(seed: int) -> None:
    shown = truth(seed)
    asked = questions(shown, np.random.default_rng(seed))
    assert {question.type for question in asked} == set(TYPES)
    for question in asked:
        right = derived(shown, question)
        if question.type == MCQ:
            options = dict(line.split(") ", 1) for line in question.text.split("\n")[1:])
            assert len(set(options.values())) == len(options) >= 2
            chosen = options.pop(question.answer)
            assert chosen in right.split(" and ")
            assert not set(options.values()) & set(right.split(" and "))
        else:
            assert question.answer == right, question


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_without_a_generator_the_questions_follow_from_the_seed(seed: int) -> None:
    assert questions(truth(seed)) == questions(truth(seed))


def closed_sample(count: int) -> list[Question]:
    rng = np.random.default_rng(0)
    return [balanced(closed_questions(truth(seed), rng), rng) for seed in range(count)]


def test_neither_yes_nor_no_is_a_good_guess_for_every_closed_question() -> None:
    assert 0.38 < np.mean([question.answer == "yes" for question in closed_sample(2000)]) < 0.62


def test_always_saying_no_scores_one_half_where_answers_are_drawn_evenly() -> None:
    rng = np.random.default_rng(5)
    drawn = [even_answers(closed_questions(truth(seed), rng), rng) for seed in range(1000)]
    assert 0.45 < np.mean([question.answer == "no" for question in drawn]) < 0.55
    assert {question.topic for question in drawn} == {
        "presence",
        "side",
        "size",
        "count",
        "normal",
        "modality",
    }


def test_every_letter_is_the_answer_equally_often_where_there_are_four() -> None:
    answers = [
        question.answer
        for seed in range(800)
        for question in questions(truth(seed))
        if question.type == MCQ and question.topic == "modality"
    ]
    for letter in LETTERS:
        assert 0.2 < answers.count(letter) / len(answers) < 0.3


@pytest.mark.parametrize(
    ("said", "right"), [("left", True), ("Left.", True), (" LEFT ", True), ("right", False), ("", False)]
)
def test_an_answer_matches_whatever_its_case_and_punctuation(said: str, right: bool) -> None:
    assert answer_matches(Question(OPEN, "side", "Which side?", "left"), said) is right


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_captions_read_back_to_the_truth(seed: int) -> None:
    shown = truth(seed)
    assert parse_caption(caption(shown)) == slots(shown)
    right, total = score_caption(caption(shown), shown)
    assert right == total >= 2


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=80), seed=seeds)
def test_any_text_can_be_scored_as_a_caption(text: str, seed: int) -> None:
    right, total = score_caption(text, truth(seed))
    assert 0 <= right <= total


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("This chest radiograph shows a large left mass.", (4, 4)),
        ("This chest radiograph shows a large right mass.", (3, 4)),
        ("This chest radiograph shows a small right mass.", (2, 4)),
        ("This chest radiograph shows no abnormality.", (1, 4)),
        ("This chest radiograph shows a large left mass and cardiomegaly.", (4, 5)),
        ("This brain MRI shows a large left tumor.", (0, 4)),
        ("", (0, 4)),
    ],
)
def test_a_wrong_caption_loses_the_slots_that_are_wrong(said: str, score: tuple[int, int]) -> None:
    shown = truth(0, "chest_xray", [Finding("mass", "left", "large")])
    assert score_caption(said, shown) == score


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_a_request_to_draw_names_every_attribute(seed: int) -> None:
    shown = truth(seed)
    known = CATALOGUE[shown.modality]
    text = describe(shown, np.random.default_rng(seed))
    assert any(name in text for name in (known.name, *known.synonyms))
    if shown.normal:
        assert re.search("normal|healthy|no abnormality", text)
    for finding in shown.findings:
        kind = known.kind(finding.kind)
        assert any(name in text for name in (kind.name, kind.plural, *kind.synonyms))
        for value in (finding.side, finding.size, finding.count and list(NUMBERS)[finding.count]):
            assert value is None or str(value) in text


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_rows_of_all_six_families_follow_the_schema(seed: int) -> None:
    shown = truth(seed)
    made = rows(shown, np.random.default_rng(seed))
    assert {row.task for row in made} == set(FAMILIES)
    assert len(FAMILIES) == 6
    assert {row.question_type for row in made if row.task == "vqa"} == set(TYPES)
    for row in made:
        record = row.record()
        assert {"text", "tokens", "image_path", "task", "source", "credential"} <= record.keys()
        assert record["source"] == "phantom"
        assert record["credential"] is False
        assert row.text.split(END_OF_TURN) == [part for turn in row.turns for part in turn]
        assert all(user and assistant for user, assistant in row.turns)
        pictures_asked, pictures_answered = (
            sum(turn[part].count(IMAGE) for turn in row.turns) for part in (0, 1)
        )
        if row.task == "image_generation":
            assert row.turns[0][1] == IMAGE
            assert pictures_asked == 0
        elif row.task == "multimodal_generation":
            before, after = row.turns[0][1].split(IMAGE)
            assert before
            assert score_caption(after, shown)[0] == score_caption(after, shown)[1]
            assert pictures_asked == 0
        else:
            assert pictures_answered == 0
            assert pictures_asked == 1 or row.task == "report_understanding"
        if row.task == "visual_chat":
            assert 4 <= len(row.turns) <= 8


def test_the_vocabulary_stays_small() -> None:
    words = {
        word.lower()
        for seed in range(1500)
        for text in texts(rows(truth(seed), np.random.default_rng(seed)))
        for word in re.findall(r"[A-Za-z&-]+", text)
    }
    assert 100 < len(words) < 400


def test_a_data_set_holds_rows_and_the_pictures_they_name(tmp_path: Path) -> None:
    count = write_dataset(tmp_path, range(5))
    records = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(records) == count
    assert {record["task"] for record in records} == set(FAMILIES)
    for record in records:
        assert (IMAGE in record["text"]) == (record["image_path"] is not None)
        if record["image_path"]:
            with Image.open(tmp_path / record["image_path"]) as picture:
                assert np.array_equal(np.asarray(picture), draw(record["seed"]).picture)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "rows.jsonl"]
