from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models

from services.checkpoint import Vocabulary, code_name
from services.errors import CheckpointError
from tests.support.tiny import N_CODES, tiny_tokenizer

TINY = Vocabulary(tiny_tokenizer())
SPECIAL = ["<s>", "</s>", "<pad>", "<unk>", "<racm3:break>", "<eoss>", "<reserved08706>", code_name(7)]


def reference() -> str:
    """A tokenizer as the published one is: whole characters, no decoder, shuffled ids of the codes."""
    names = ["<s>", "<pad>", "</s>", "<unk>", code_name(2), code_name(0), code_name(1)]
    names += ["<eoss>", "<racm3:break>", "<reserved08706>", "<reserved08707>", *" abcd", "ab", "<reserved1>"]
    tokenizer = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, [("a", "b")], unk_token="<unk>"))
    special = [n for n in names if n.startswith("<") and n != "<reserved1>"]
    tokenizer.add_special_tokens([AddedToken(n, special=True) for n in special])
    return tokenizer.to_str()


def test_ids_are_found_by_name() -> None:
    v = Vocabulary(reference())
    assert (v.bos, v.pad, v.eos, v.unk) == (0, 1, 2, 3)
    assert (v.end_image, v.begin_image, v.end_of_turn) == (7, 8, 9)
    assert v.code_ids.tolist() == [5, 6, 4]
    assert v.image_span([2, 0]) == [8, 4, 5, 7]
    assert v.id_to_code(v.image_span([2, 0])).tolist() == [-1, 2, 0, -1]
    assert v.size == 18


def test_text_ids_are_neither_codes_nor_steering_nor_reserved() -> None:
    v = Vocabulary(reference())
    assert [v.name(int(i)) for i in v.text_ids] == [*" abcd", "ab"]


def test_a_tokenizer_without_a_decoder_joins_its_tokens() -> None:
    v = Vocabulary(reference())
    assert v.encode("abc da") == [16, 14, 11, 15, 12]
    assert v.decode(v.encode("abc da")) == "abc da"
    assert v.encode("a?") == [12, v.unk]


def test_the_name_of_a_code_is_its_digits_in_letters() -> None:
    assert [code_name(k) for k in (0, 9, 10, 8191)] == ["IMGIMGAZ", "IMGIMGJZ", "IMGIMGBAZ", "IMGIMGIBJBZ"]


@given(parts=st.lists(st.one_of(st.text(max_size=8), st.sampled_from(SPECIAL)), max_size=6))
@settings(max_examples=50, deadline=None)
def test_text_stays_text_even_where_it_spells_a_special_token(parts: list[str]) -> None:
    text = "".join(parts)
    ids = TINY.encode(text)
    assert TINY.is_text[ids].all()
    assert TINY.decode(ids) == text


def test_decoding_leaves_out_what_is_not_text() -> None:
    ids = [TINY.bos, *TINY.encode("hello"), *TINY.image_span([1, 2]), *TINY.encode(" you"), TINY.eos, 10**6]
    assert TINY.decode(ids) == "hello you"


@pytest.mark.parametrize("name", ["<s>", "<racm3:break>", "<eoss>", "<reserved08706>"])
def test_a_missing_steering_token_is_named(name: str) -> None:
    broken = json.loads(tiny_tokenizer().replace(f'"{name}"', '"other"'))
    with pytest.raises(CheckpointError, match=name):
        Vocabulary(json.dumps(broken))


def test_a_gap_in_the_codes_is_refused() -> None:
    with pytest.raises(CheckpointError, match="without gaps"):
        Vocabulary(tiny_tokenizer().replace(code_name(3), "nothing"))


def test_codes_and_ids_are_inverse() -> None:
    codes = np.arange(N_CODES)
    assert np.array_equal(TINY.id_to_code(TINY.code_ids[codes]), codes)
