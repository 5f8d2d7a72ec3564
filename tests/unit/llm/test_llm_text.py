from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.checkpoint import Checkpoint, Vocabulary
from services.llm.text import TextAssembler


def assemble(vocabulary: Vocabulary, ids: list[int], stops: tuple[str, ...]) -> tuple[list[str], list[int]]:
    """The pieces that leave, and their ids, when `ids` arrive one at a time."""
    assembler = TextAssembler(vocabulary, stops)
    pieces, kept = [], []
    for token in ids:
        assembler.push(token, None)
        if assembler.stopped:
            break
        if (text := assembler.take()) is not None:
            pieces.append(text.text)
            kept += text.token_ids
    if (text := assembler.flush()) is not None:
        pieces.append(text.text)
        kept += text.token_ids
    return pieces, kept


@given(text=st.text(max_size=40))
@example(text="\ufffd")
@settings(max_examples=50, deadline=None)
def test_pieces_are_whole_characters_and_join_to_the_text(text: str, checkpoint: Checkpoint) -> None:
    v = checkpoint.vocabulary
    pieces, ids = assemble(v, v.encode(text), ())
    assert "".join(pieces) == text
    assert ids == v.encode(text)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(data=st.data(), text=st.text(alphabet="ab€😀 th", max_size=30))
@settings(max_examples=50, deadline=None)
def test_text_ends_before_the_first_stop_string_however_it_is_cut(
    data: st.DataObject, text: str, checkpoint: Checkpoint
) -> None:
    stops = tuple(data.draw(st.lists(st.text(alphabet="ab€😀 th", min_size=1, max_size=4), max_size=3)))
    v = checkpoint.vocabulary
    pieces, _ = assemble(v, v.encode(text), stops)
    first = [
        (end, text[:end].find(stop)) for stop in stops for end in range(len(text) + 1) if stop in text[:end]
    ]
    # The stop that completes first ends the text; among those complete at once, the one that begins first.
    if first:
        earliest = min(end for end, _ in first)
        token_end = _token_end(v, text, earliest)
        seen = text[:token_end]
        expected = text[: min(seen.find(stop) for stop in stops if stop in seen)]
    else:
        expected = text
    assert "".join(pieces) == expected


def _token_end(vocabulary: Vocabulary, text: str, characters: int) -> int:
    """Characters that are complete once the token with character number `characters` has arrived."""
    ids = vocabulary.encode(text)
    for count in range(len(ids) + 1):
        decoded = vocabulary.decode(ids[:count])
        if not decoded.endswith("\ufffd") and len(decoded) >= characters:
            return len(decoded)
    raise AssertionError("unreachable")


@given(ids=st.lists(st.integers(40, 299), max_size=60))
@settings(max_examples=50, deadline=None)
def test_broken_bytes_delay_but_never_lose_a_character(ids: list[int], checkpoint: Checkpoint) -> None:
    v = checkpoint.vocabulary
    pieces, kept = assemble(v, ids, ())
    assert kept == ids
    assert "".join(pieces).rstrip("\ufffd") == v.decode(ids).rstrip("\ufffd")


def test_a_possible_beginning_of_a_stop_string_is_held_back(checkpoint: Checkpoint) -> None:
    v = checkpoint.vocabulary
    assembler = TextAssembler(v, ("END",))
    seen = []
    for token in v.encode("aENbEND"):
        assembler.push(token, None)
        text = None if assembler.stopped else assembler.take()
        seen.append(text.text if text else "")
    assert seen == ["a", "", "", "ENb", "", "", ""]
    assert assembler.stopped


def test_an_unfinished_character_at_the_end_is_dropped_but_its_ids_are_told(checkpoint: Checkpoint) -> None:
    v = checkpoint.vocabulary
    ids = v.encode("a€")[:-1]
    pieces, kept = assemble(v, ids, ())
    assert "".join(pieces) == "a"
    assert kept == ids
