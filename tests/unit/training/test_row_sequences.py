"""Rows as sequences: what is read, what is learnt, and what is refused rather than learnt as garbage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.checkpoint import Vocabulary
from tests.support.instructions import EOT
from tests.support.tiny import CODES_PER_IMAGE, N_CODES, tiny_tokenizer
from training.phantom.vocabulary import tokenizer_json
from training.rows.schema import pair_of, row_of
from training.rows.sequence import CHOSEN, REJECTED, Example, SequenceMaker, learnt
from training.rows.trouble import Reason, Unusable

VOCABULARY = Vocabulary(tiny_tokenizer())
CODES = {
    name: np.random.default_rng(i).integers(N_CODES, size=CODES_PER_IMAGE) for i, name in enumerate("ab")
}
MAKER = SequenceMaker(VOCABULARY, CODES_PER_IMAGE, 120, lambda path: CODES[path])
BOS, EOS, TURN = VOCABULARY.bos, VOCABULARY.eos, VOCABULARY.end_of_turn


def span(name: str) -> list[int]:
    return VOCABULARY.image_span(CODES[name])


def ids(text: str) -> list[int]:
    return VOCABULARY.encode(text)


def make(**record: Any) -> Example:
    return MAKER.row(row_of(record))


def refused(**record: Any) -> tuple[str, str]:
    with pytest.raises(Unusable) as caught:
        make(**record)
    return str(caught.value.reason), caught.value.message


def labels(example: Example) -> list[int]:
    return example.labels[example.labels >= 0].tolist()


def test_one_turn_reads_as_the_server_asks_it_and_its_answer_is_learnt_to_the_end() -> None:
    example = make(text=f"<image>Well?{EOT}yes", image_path="a")
    assert example.ids.tolist() == [BOS, *span("a"), *ids("Well?"), TURN, *ids("yes")]
    assert labels(example) == [*ids("yes"), EOS]
    assert learnt(example, VOCABULARY) == (len(ids("yes")) + 1, 0)


def test_every_answer_of_a_dialogue_is_learnt_and_no_users_turn_is() -> None:
    example = make(text=f"One?{EOT}1{EOT}Two?{EOT}2")
    assert labels(example) == [*ids("1"), EOS, *ids("2"), EOS]
    assert example.ids.tolist() == [BOS, *ids("One?"), TURN, *ids("1"), TURN, *ids("Two?"), TURN, *ids("2")]


def test_of_a_row_that_says_so_the_last_answer_alone_is_learnt() -> None:
    text = f"<image>One?{EOT}1{EOT}Two?{EOT}2"
    example, whole = (
        make(text=text, image_path="a", **more) for more in ({"learn": "last"}, {"learn": "all"})
    )
    assert labels(example) == [*ids("2"), EOS]
    assert example.ids.tolist() == whole.ids.tolist()
    assert example.labels[-2:].tolist() == whole.labels[-2:].tolist()
    assert labels(whole) == [*ids("1"), EOS, *ids("2"), EOS]


def test_a_row_that_keeps_has_the_same_sequence_and_says_so() -> None:
    text = f"<image>One?{EOT}1{EOT}Two?{EOT}2"
    kept, whole = (make(text=text, image_path="a", learn=learn) for learn in ("keep", "all"))
    assert (kept.keep, whole.keep) == (True, False)
    assert kept.ids.tolist() == whole.ids.tolist()
    assert kept.labels.tolist() == whole.labels.tolist()
    assert refused(text=text, image_path="a", learn="some") == (
        Reason.BAD_FIELD,
        "learn: must be all, last or keep",
    )


def test_a_row_whose_last_answer_does_not_fit_is_refused_where_it_alone_is_learnt() -> None:
    long = "x" * 60
    assert refused(text=f"A{EOT}b{EOT}{long}{EOT}{long}", learn="last")[0] == Reason.TOO_LONG
    assert refused(text=f"A{EOT}b{EOT}c{EOT}", learn="last")[0] == Reason.NO_ANSWER


def test_codes_of_answers_are_learnt_and_codes_of_questions_are_not() -> None:
    example = make(text=f"<image>Draw.{EOT}Here: <image>", image_path=["a", "b"])
    assert labels(example) == [*ids("Here: "), *span("b"), EOS]
    assert learnt(example, VOCABULARY)[1] == CODES_PER_IMAGE


@given(
    st.lists(
        st.tuples(st.text(max_size=8), st.text(min_size=1, max_size=8), st.booleans()), min_size=1, max_size=4
    )
)
@settings(max_examples=60, deadline=None)
def test_tokens_and_text_of_a_row_give_the_same_sequence(turns: list[tuple[str, str, bool]]) -> None:
    turns = [(u.replace("<", ""), a.replace("<", "") or "x", p) for u, a, p in turns]
    text = EOT.join(f"{'<image>' if p else ''}{user}{EOT}{answer}" for user, answer, p in turns)
    row = row_of({"text": text, "image_path": ["a"] * sum(p for *_, p in turns)})
    tokens = MAKER.tokens(row).tolist()
    assert (tokens[0], tokens[-1]) == (BOS, EOS)
    roomy = SequenceMaker(VOCABULARY, CODES_PER_IMAGE, 1000, lambda path: CODES[path])
    wanted, found = roomy.row(row), roomy.row(row_of({"text": text, "tokens": tokens}))
    assert found.ids.tolist() == wanted.ids.tolist()
    assert found.labels.tolist() == wanted.labels.tolist()


def test_labels_are_next_ids_or_the_end() -> None:
    example = make(text=f"<image>A{EOT}b <image> c{EOT}D{EOT}e", image_path=["a", "b"])
    for place, label in enumerate(example.labels.tolist()):
        following = example.ids[place + 1] if place + 1 < len(example) else None
        assert label in (-1, EOS, following)


def test_turns_that_do_not_fit_are_left_out_whole() -> None:
    long = "x" * 60
    example = make(text=f"A{EOT}b{EOT}{long}{EOT}{long}")
    assert example.ids.tolist() == [BOS, *ids("A"), TURN, *ids("b")]
    assert refused(text=f"{long}{EOT}{long}")[0] == Reason.TOO_LONG


TOKENS = [BOS, *span("a"), *ids("hi"), TURN, *ids("ok"), EOS]


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        ([BOS, *ids("hi"), *ids("ok"), EOS], Reason.NO_END_OF_TURN),
        ([BOS, *ids("hi"), TURN, 70_000, EOS], Reason.OTHER_VOCABULARY),
        ([BOS, -1, TURN, 40, EOS], Reason.OTHER_VOCABULARY),
        ([BOS, *ids("hi"), TURN, VOCABULARY.pad, EOS], Reason.OTHER_VOCABULARY),
        ([BOS, BOS, *ids("hi"), TURN, 60, EOS], Reason.OTHER_VOCABULARY),
        ([2**70], Reason.OTHER_VOCABULARY),
        ([BOS, *span("a")[:-2], VOCABULARY.end_image, TURN, 60, EOS], Reason.SPAN_NOT_WHOLE),
        ([BOS, *span("a")[:-1], TURN, 60, EOS], Reason.SPAN_NOT_WHOLE),
        ([BOS, span("a")[1], TURN, 60, EOS], Reason.SPAN_NOT_WHOLE),
        (
            [BOS, *span("a")[:5], VOCABULARY.end_of_turn, *span("a")[6:], TURN, 60, EOS],
            Reason.CODE_OUT_OF_RANGE,
        ),
        ([BOS, 60.5], Reason.BAD_FIELD),
        ([True], Reason.BAD_FIELD),
        ("0 1 2", Reason.BAD_FIELD),
        ([], Reason.BAD_FIELD),
    ],
)
def test_tokens_that_are_not_this_models_are_refused(tokens: Any, reason: str) -> None:
    assert refused(tokens=tokens)[0] == reason


def test_tokens_of_another_vocabulary_are_refused_even_where_every_id_is_known() -> None:
    other = Vocabulary(tokenizer_json(["other"] * 9, N_CODES, 260))
    text = f"some other{EOT}answer"
    foreign = [
        other.bos,
        *other.encode("some other"),
        other.end_of_turn,
        *other.encode("answer"),
        other.eos,
    ]
    assert max(foreign) < VOCABULARY.size
    assert refused(text=text, tokens=foreign)[0] == Reason.OTHER_VOCABULARY
    assert len(make(text=text)) > 0


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, Reason.BAD_FIELD),
        ({"text": 5}, Reason.BAD_FIELD),
        ({"text": "\ud800"}, Reason.BAD_FIELD),
        ({"text": "no turn"}, Reason.NO_END_OF_TURN),
        ({"text": f"A{EOT}"}, Reason.NO_ANSWER),
        ({"text": f"<image>A{EOT}b"}, Reason.MISSING_PICTURE),
        ({"text": f"<image>A{EOT}b", "image_path": ["a", "b"]}, Reason.PICTURES_DISAGREE),
        ({"text": f"A{EOT}b", "image_path": "a"}, Reason.PICTURES_DISAGREE),
        ({"text": f"<image>A{EOT}b", "image_path": ["a\0"]}, Reason.BAD_FIELD),
        ({"text": f"A{EOT}b", "learn": "first"}, Reason.BAD_FIELD),
        ({"text": f"<image>A{EOT}b", "credential": True}, Reason.NEEDS_CREDENTIAL),
        ({"text": f"<image>A{EOT}b", "credential": "yes"}, Reason.NEEDS_CREDENTIAL),
        ({"credential": True, "image_path": None, "tokens": None}, Reason.NEEDS_CREDENTIAL),
        ({"text": f"<image>A{EOT}b", "image_tokens": [0] * 15}, Reason.SPAN_NOT_WHOLE),
        ({"text": f"<image>A{EOT}b", "img_tokens": [N_CODES] * 16}, Reason.CODE_OUT_OF_RANGE),
    ],
)
def test_rows_that_say_too_little_or_nonsense_are_refused_by_name(
    record: dict[str, Any], reason: str
) -> None:
    assert refused(**record)[0] == reason


def test_codes_may_stand_in_for_the_picture() -> None:
    given = make(text=f"<image>A{EOT}b", image_tokens=CODES["a"].tolist())
    assert given.ids.tolist() == make(text=f"<image>A{EOT}b", image_path="a").ids.tolist()


def test_a_pair_is_its_prompt_once_and_two_answers_that_stand_in_the_same_place() -> None:
    pair = pair_of(
        {
            "prompt": "<image>Q",
            "image_path": "a",
            "chosen": "good",
            "rejected": "<image>",
            "rejected_image_path": "b",
        }
    )
    example = MAKER.pair(pair)
    shared = [BOS, *span("a"), *ids("Q")]
    for number, answer in ((CHOSEN, ids("good")), (REJECTED, span("b"))):
        part = example.block == number
        assert example.ids[part].tolist() == [TURN, *answer]
        assert example.labels[part].tolist() == [*answer, EOS]
        assert example.positions[part].tolist() == list(range(len(shared), len(shared) + len(answer) + 1))
    assert example.ids[example.block == 0].tolist() == shared


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Q", "chosen": "a"},
        {"prompt": "Q", "chosen": "a", "rejected": "a"},
        {"prompt": "Q", "chosen": f"a{EOT}b", "rejected": "c"},
        {"prompt": ["Q"], "chosen": "a", "rejected": "b"},
        {"prompt": "", "chosen": "a", "rejected": "b"},
    ],
)
def test_pairs_without_two_different_answers_are_refused(record: dict[str, Any]) -> None:
    with pytest.raises(Unusable) as caught:
        pair_of(record)
    assert caught.value.reason == Reason.BAD_FIELD
