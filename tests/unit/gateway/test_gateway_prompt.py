"""Conversations as token ids."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.checkpoint import Vocabulary
from services.errors import ContextOverflow
from services.gateway.prompt import build
from services.pb.medmax.v1 import assistant_pb2
from tests.support.tiny import tiny_tokenizer

VOCABULARY = Vocabulary(tiny_tokenizer())
BOS, END = VOCABULARY.bos, VOCABULARY.end_of_turn
IMAGE = b"image"
CODES = [[1] * 16, [2] * 16, [3] * 16]
ROLES = {
    "system": assistant_pb2.ROLE_SYSTEM,
    "user": assistant_pb2.ROLE_USER,
    "assistant": assistant_pb2.ROLE_ASSISTANT,
}


def messages(*turns: tuple[str, *tuple[str | bytes, ...]]) -> list[assistant_pb2.Message]:
    made = []
    for role, *parts in turns:
        message = assistant_pb2.Message(role=ROLES[str(role)])
        for part in parts:
            if isinstance(part, bytes):
                message.parts.add(image=assistant_pb2.ImagePart(data=part))
            else:
                message.parts.add(text=part)
        made.append(message)
    return made


def ids(*turns: tuple[str, *tuple[str | bytes, ...]]) -> list[int]:
    return build(messages(*turns), VOCABULARY).ids(CODES, VOCABULARY)


def text(value: str) -> list[int]:
    return VOCABULARY.encode(value)


def span(index: int) -> list[int]:
    return VOCABULARY.image_span(CODES[index])


def test_question_on_a_picture_has_the_published_form() -> None:
    assert ids(("user", IMAGE, "what?")) == [BOS, *span(0), *text("what?"), END]


def test_every_turn_ends_with_end_of_turn_and_starts_with_none() -> None:
    assert ids(("user", "a"), ("assistant", "b"), ("user", "c")) == [
        BOS, *text("a"), END, *text("b"), END, *text("c"), END,
    ]  # fmt: skip


def test_parts_keep_their_order_and_pictures_their_codes() -> None:
    assert ids(("user", "x", IMAGE, "y", IMAGE), ("assistant", IMAGE, "z"), ("user", "w")) == [
        BOS, *text("x"), *span(0), *text("y"), *span(1), END, *span(2), *text("z"), END, *text("w"), END,
    ]  # fmt: skip


def test_neighbouring_texts_stand_on_lines_of_their_own() -> None:
    assert ids(("user", "x", "", "y")) == [BOS, *text("x\ny"), END]


def test_system_text_comes_before_the_first_user_text() -> None:
    assert ids(("system", "s", "t"), ("system", "u"), ("user", IMAGE, "x"), ("assistant", "y"), ("user", "z")) == [
        BOS, *span(0), *text("s\nt\nu\nx"), END, *text("y"), END, *text("z"), END,
    ]  # fmt: skip


def test_system_text_is_kept_where_the_user_sends_pictures_alone() -> None:
    assert ids(("system", "s"), ("user", IMAGE)) == [BOS, *span(0), *text("s"), END]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.sampled_from(["<s>", "</s>", "<racm3:break>", "IMGIMGBZ", "<eoss>", "<reserved08706>", " a", "é"])
    )
)
def test_user_text_never_becomes_a_steering_token_or_an_image_code(pieces: list[str]) -> None:
    prompt = ids(("user", "q" + "".join(pieces)))
    assert prompt[0] == BOS
    assert prompt[-1] == END
    assert all(VOCABULARY.is_text[i] for i in prompt[1:-1])


def test_length_is_known_before_pictures_are_tokenized() -> None:
    conversation = messages(("user", "x", IMAGE, "y", IMAGE))
    prompt = build(conversation, VOCABULARY)
    assert prompt.length(18) == len(prompt.ids(CODES, VOCABULARY))


def test_overflow_says_how_many_pictures_fit() -> None:
    prompt = build(messages(("user", "four", IMAGE, IMAGE, IMAGE)), VOCABULARY)
    prompt.check_fits(span=18, context=61, answer=1)
    with pytest.raises(
        ContextOverflow, match=r"60 tokens, 3 pictures of 18 .* at most 59 fit .* 2 pictures fit"
    ) as caught:
        prompt.check_fits(span=18, context=60, answer=1)
    assert caught.value.field == "messages"
    with pytest.raises(ContextOverflow, match="the text alone has 6"):
        prompt.check_fits(span=18, context=6, answer=1)
