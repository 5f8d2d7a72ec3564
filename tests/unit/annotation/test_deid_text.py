"""Identifiers in texts: what goes, what stays, and that cleaning twice changes nothing."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.deid import Category, Span, check_text
from annotation.deid.doubt import doubt
from annotation.deid.text import RULES, clean, find, names_in
from evaluation.phantoms import draw, rows
from evaluation.phantoms.rows import END_OF_TURN, IMAGE
from tests.support.deid_bank import DEVELOPMENT


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Patient: Maria Gonzalez, MRN 00482913", "Patient: [NAME], MRN [RECORD]"),
        ("Seen by Dr. O'Brien on 12/03/2021.", "Seen by Dr. [NAME] on [DATE]."),
        ("DOE^JANE^A, born 1931", "[NAME], born [DATE]"),
        ("He is 94 years old, his wife 71 years old.", "He is [AGE] years old, his wife 71 years old."),
        ("Call (555) 014-7788 or fax 555-014-7799", "Call [PHONE] or fax [FAX]"),
        ("SSN 123-45-6789; j.doe@example.org", "SSN [SSN]; [EMAIL]"),
        ("Medicare 1EG4-TE5-MK73, account no. 7782019", "Medicare [HEALTH_PLAN], account no. [ACCOUNT]"),
        ("driver's license D1234567, VIN 1HGCM82633A004352", "driver's license [LICENCE], VIN [VEHICLE]"),
        (
            "Pacemaker S/N PJN482913S, fingerprint ID FP-88213",
            "Pacemaker S/N [DEVICE], fingerprint ID [BIOMETRIC]",
        ),
        ("https://x.org/p/4 from 10.44.0.7, photo IMG_0412.jpg", "[URL] from [IP], photo [PHOTO]"),
        ("She lives in Springfield.", "She lives in [PLACE]."),
        ("Insured by Aetna, ID W2398 11204.", "Insured by Aetna, ID [HEALTH_PLAN]."),
        ("Barrett asked for a copy.", "[NAME] asked for a copy."),
        ("study 550e8400-e29b-41d4-a716-446655440000", "study [OTHER]"),
    ],
)
def test_each_kind_of_identifier_gives_way_to_its_placeholder(text: str, cleaned: str) -> None:
    assert clean(text).text == cleaned


@pytest.mark.parametrize(("text", "terms"), DEVELOPMENT.clean)
def test_medicine_stays(text: str, terms: tuple[str, ...]) -> None:
    assert clean(text).text == text
    assert doubt(text) is None


def test_nothing_the_phantoms_say_is_changed_or_held() -> None:
    texts = {
        text
        for seed in range(12)
        for row in rows(draw(seed), np.random.default_rng(seed))
        for text in row.text.replace(IMAGE, "\n").split(END_OF_TURN)
    }
    assert len(texts) > 100
    assert [text for text in texts if clean(text).text != text or doubt(text)] == []


def test_a_title_makes_a_person_of_an_eponym() -> None:
    text = "Mr Parkinson has Parkinson disease, Dr Colles set the Colles fracture."
    assert clean(text).text == "Mr [NAME] has Parkinson disease, Dr [NAME] set the Colles fracture."


def test_a_name_given_away_once_is_removed_from_the_whole_item() -> None:
    turns = ("Mrs. Vexelberg fell.", "Does Vexelberg need surgery?", "VEXELBERG should rest.")
    known = names_in(turns)
    cleaned = [clean(turn, (*RULES, known)).text for turn in turns]
    assert cleaned == ["Mrs. [NAME] fell.", "Does [NAME] need surgery?", "[NAME] should rest."]


@pytest.mark.parametrize(
    "text",
    [
        "MRN\u200b 0048\u200b2913",
        "ＭＲＮ ００４８２９１３",
        "MRN ٠٠٤٨٢٩١٣",
        "DOB 12\u201103\u20111956",
        "Dr\u00a0Gonza\u0301lez",
    ],
)
def test_invisible_wide_and_foreign_characters_hide_nothing(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned.removed) == 1
    assert not any(c.isdigit() for c in cleaned.text)
    assert "lez" not in cleaned.text


@given(
    st.lists(st.sampled_from([t for texts in DEVELOPMENT.sentences.values() for t in texts]), max_size=4),
    st.text(max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_cleaning_twice_changes_nothing(templates: list[str], noise: str) -> None:
    text = noise.join(
        template.format_map({slot: values[0] for slot, values in DEVELOPMENT.values.items()})
        for template in templates
    )
    once = clean(text).text
    again = clean(once)
    assert again.text == once
    assert not again.removed
    assert check_text(once) == []


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_text_is_cleaned_or_left_alone_without_an_error(text: str) -> None:
    spans = find(text)
    assert all(0 <= a.start < a.end <= len(text) for a in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))


@pytest.mark.parametrize(
    "piece", ["1-", "A ", "Aa ", "9.", "a@", "1 ", "Dr ", "::", "A^", "12/", "0a:", "-a", "Patient: "]
)
def test_time_grows_with_the_text_alone(piece: str) -> None:
    """Twice the text may take thrice the time, not four times and more."""

    def seconds(length: int) -> float:
        start = time.process_time()
        find(piece * (length // len(piece)))
        return time.process_time() - start

    seconds(200)
    assert seconds(8_000) < 0.2 + 3.5 * seconds(4_000)


def test_the_check_of_a_result_names_categories_once() -> None:
    assert check_text("MRN 00482913 and MRN 00482914 of Dr. Smith") == [Category.NAME, Category.RECORD]


def test_a_recogniser_from_elsewhere_adds_to_the_rules() -> None:
    class Beds:
        def find(self, text: str) -> list[Span]:
            start = text.find("bay seven")
            return [] if start < 0 else [Span(Category.OTHER, start, start + 9)]

    assert clean("now in bay seven", (*RULES, Beds())).text == "now in [OTHER]"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Пациент Иванов, пневмония", "script"),
        (
            "Der Patient wurde mit Fieber aufgenommen und die Lunge ist frei, kein Befund bei der Untersuchung.",
            "language",
        ),
        ("Treatment with Zorbinexol was stopped by Blorvak today.", "capitalised"),
    ],
)
def test_what_the_rules_cannot_tell_is_held(text: str, reason: str) -> None:
    assert reason in (doubt(clean(text).text) or "")


def test_words_of_the_own_house_are_no_reason_to_hold() -> None:
    text = "Treatment with Zorbinexo was stopped."
    assert doubt(text)
    assert doubt(text, frozenset({"zorbinexo"})) is None
