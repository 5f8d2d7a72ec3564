"""Reports, sentence by sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.labelstudio import sentences
from tests.support.labelstudio import REPORT

TEXT = st.text(st.sampled_from("ab.?! \n\tDr3"), max_size=60)


@given(TEXT)
def test_no_sentence_is_empty_and_nothing_is_lost(text: str) -> None:
    found, joints = sentences.split(text)
    assert all(found)
    assert len(joints) == max(0, len(found) - 1)
    pieces = [piece for pair in zip(found, [*joints, ""], strict=False) for piece in pair]
    assert "".join(pieces) == text.strip()


@given(TEXT)
def test_an_unedited_report_comes_back_as_it_was(text: str) -> None:
    found, _ = sentences.split(text)
    assert sentences.join(found, text) == text.strip()


def test_abbreviations_and_decimals_end_no_sentence() -> None:
    found, _ = sentences.split("Seen by Dr. Who, e.g. at 3.5 cm. See No. 4.")
    assert found == ["Seen by Dr. Who, e.g. at 3.5 cm.", "See No. 4."]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda s: [s[0], s[1], "A large right effusion.", s[3]], "{0} {1} A large right effusion.\n{3}"),
        (lambda s: [s[0], *s[2:]], "{0} {2}\n{3}"),
        (lambda s: [*s, "No pneumothorax."], "{0} {1} {2}\n{3} No pneumothorax."),
        (lambda s: [" " + s[0] + "\n", *s[1:], "  "], "{0} {1} {2}\n{3}"),
        (lambda s: [], ""),
    ],
    ids=["one changed", "one deleted", "one added", "white space", "all deleted"],
)
def test_an_edited_report_keeps_its_lines(edit, expected) -> None:  # type: ignore[no-untyped-def]
    found, _ = sentences.split(REPORT)
    assert len(found) == 4
    assert sentences.join(edit(found), REPORT) == expected.format(*found)
