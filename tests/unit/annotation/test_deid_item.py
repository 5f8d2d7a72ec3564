"""Whole items: where things were removed, and what holds them."""

from __future__ import annotations

import logging

import pytest

from annotation.core import Item, Kind, Turn
from annotation.deid import Category, Deidentifier, Finding
from annotation.deid.presidio import PresidioRecogniser
from annotation.deid.text import MAX_CHARACTERS
from services.errors import ConfigurationError

BY = Deidentifier()


def item(*turns: str, answer: str = "No mass is seen.", alternatives: tuple[str, ...] = ()) -> Item:
    dialogue = tuple(Turn("user", (turn,)) for turn in turns)
    return Item("i", Kind.CHAT, dialogue, (answer,), tuple((text,) for text in alternatives))


def test_the_report_tells_where_and_how_many_and_nothing_else() -> None:
    result = BY.clean(
        item("Mrs. Gonzalez, MRN 00482913 and MRN 00482914", answer="Thank you, Mrs. Gonzalez.")
    )
    assert result.report.findings == (
        Finding(Category.NAME, "dialogue[0].parts[0]", 1),
        Finding(Category.RECORD, "dialogue[0].parts[0]", 2),
        Finding(Category.NAME, "answer.parts[0]", 1),
    )
    assert "Gonzalez" not in repr(result.report)
    assert result.report.record()[1] == {"category": "record", "where": "dialogue[0].parts[0]", "count": 2}


def test_a_name_in_the_question_is_removed_from_the_alternatives() -> None:
    result = BY.clean(item("Patient: Vexelberg", alternatives=("Vexelberg is well.", "No finding.")))
    assert result.item.alternatives == (("[NAME] is well.",), ("No finding.",))


def test_a_text_too_long_is_held_without_its_content() -> None:
    result = BY.clean(item("mass " * MAX_CHARACTERS))
    assert "characters" in (result.held or "")
    assert result.item.dialogue == ()


def test_the_reason_names_the_place_and_no_word_of_it() -> None:
    held = BY.clean(item("Is there a mass?", "The report of Blorvak is attached.")).held
    assert held is not None
    assert held.startswith("dialogue[1].parts[0]")
    assert "Blorvak" not in held


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        BY.clean(item("Mrs. Gonzalez, MRN 00482913"))
    assert "Gonzalez" not in caplog.text


def test_presidio_is_refused_clearly_where_it_is_missing() -> None:
    try:
        import presidio_analyzer  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ConfigurationError, match="presidio-analyzer"):
            PresidioRecogniser()
    else:
        spans = list(PresidioRecogniser().find("card 4111 1111 1111 1111, j.doe@example.org"))
        assert {span.category for span in spans} >= {Category.ACCOUNT, Category.EMAIL}
