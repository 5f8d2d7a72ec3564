"""Labelling configurations, and items as tasks."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.core import Kind, Picture, Turn, Verdict
from annotation.labelstudio import render, templates
from annotation.labelstudio.templates import FOLDER
from services.errors import ConfigurationError, InvalidInput
from tests.support.labelstudio import choices, item, ranked, texts

ALL = [*Kind]


def task(about: Any, kind: Kind | None = None) -> render.Task:
    urls = {picture.sha256: f"http://pictures/{picture.sha256[:8]}?a=1&b=2" for picture in about.pictures}
    return render.task(about, templates.load(kind or about.kind), urls)


@pytest.mark.parametrize("kind", ALL)
def test_a_task_holds_every_field_that_its_configuration_shows(kind: Kind) -> None:
    made = task(item(kind, "int-1"))
    assert templates.load(kind).fields <= made.data.keys()
    assert made.meta["item"] == "int-1"
    assert made.meta["kind"] == kind.value
    assert made.meta["version"] == templates.load(kind).version


@pytest.mark.parametrize("kind", ALL)
def test_controls_ask_about_objects_that_are_there_and_required_ones_say_so(kind: Kind) -> None:
    template = templates.load(kind)
    root = ElementTree.fromstring(template.xml)
    names = {element.get("name") for element in root.iter()} - {None}
    assert all(set(control.to) <= names for control in template.controls.values())
    required = [element for element in root.iter() if element.get("required") == "true"]
    assert all(element.get("requiredMessage") for element in required)
    hotkeys = [element.get("hotkey") for element in root.iter() if element.get("hotkey")]
    assert len(set(hotkeys)) == len(hotkeys)


def test_missing_findings_are_those_that_regions_may_have() -> None:
    controls = templates.load(Kind.REPORT).controls
    assert controls["label"].values == controls["missing"].values


@pytest.mark.parametrize("kind", ALL)
def test_what_is_prefilled_is_never_a_decision(kind: Kind) -> None:
    names = {result["from_name"] for result in task(item(kind, "int-1")).result}
    assert names <= {"text", "form"}


def test_a_gold_verdict_and_the_reason_stay_here() -> None:
    gold = item(Kind.CHAT, "int-1", gold=Verdict(text="The secret truth."), patient="hash-of-a-patient")
    made = task(gold)
    for secret in ("secret", "gold", "hash-of-a-patient", "flag"):
        assert secret not in str(made)


@given(st.text(max_size=200))
def test_users_words_are_text_and_never_markup(words: str) -> None:
    made = task(item(Kind.CHAT, "int-1", dialogue=(Turn("user", (words,)),), answer=(words,)))
    for html in (made.data["dialogue"], made.data["answer"]):
        tags = set(re.findall(r"<[^>]*>", html))
        assert tags <= {"<br>", "</div>"} | {
            tag for tag in tags if re.fullmatch(r'<div class="mm-[a-z -]+">', tag)
        }
    assert "\0" not in str(made.data)


def test_pictures_are_shown_where_they_stand() -> None:
    film = Picture("ab" * 32)
    made = task(item(Kind.CHAT, "int-1", answer=("Before ", film, " after.")))
    html = made.data["answer"]
    assert html.index("Before") < html.index("<img") < html.index("after")
    assert "a=1&amp;b=2" in html
    assert made.data["text"] == "Before <image> after."


def test_pictures_to_mark_come_once_each_in_order() -> None:
    one, two = Picture("aa" * 32), Picture("bb" * 32)
    about = item(Kind.REPORT, "int-1", dialogue=(Turn("user", (one, two, one, "Compare.")),))
    made = task(about)
    assert made.meta["pictures"] == [one.sha256, two.sha256]
    assert len(made.data["pictures"]) == 2


def test_alternatives_are_named_by_letters() -> None:
    made = task(ranked("int-1", 4))
    assert [entry["id"] for entry in made.data["alternatives"]] == ["a", "b", "c", "d"]
    assert made.meta["alternatives"] == 4
    assert made.result[0]["value"] == {"choices": ["rank"]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": ""}, "item.id"),
        ({"answer": ()}, "item.answer"),
        ({"kind": Kind.REPORT, "dialogue": (Turn("user", ("Report.",)),)}, "item.dialogue"),
        ({"kind": Kind.PICTURE, "answer": ("No picture.",)}, "item.answer"),
        ({"kind": Kind.PREFERENCE, "alternatives": (("One.",),)}, "item.alternatives"),
        ({"kind": Kind.PREFERENCE, "alternatives": (("One.",),) * 9}, "item.alternatives"),
        ({"answer": ("x" * 200_001,)}, "item"),
    ],
)
def test_an_item_that_cannot_be_shown_is_refused(change: dict[str, Any], field: str) -> None:
    about = item(Kind.CHAT, "int-1")
    about = type(about)(**{**about.__dict__, **change})
    with pytest.raises(InvalidInput) as refusal:
        task(about)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("result", "field"),
    [
        (choices("nothing", "accept"), "result[0].from_name"),
        (choices("decision", "accept") | {"to_name": "picture"}, "result[0].to_name"),
        (choices("decision", "accept") | {"type": "rating"}, "result[0].type"),
        (choices("decision", "perhaps"), "result[0].value"),
        (choices("decision"), "result[0].value"),
        (texts("text", "one", "two"), "result[0].value"),
        (texts("text", 3), "result[0].value"),  # type: ignore[arg-type]
    ],
)
def test_what_the_editor_could_not_show_is_refused(result: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        templates.load(Kind.CHAT).check_results([result])
    assert refusal.value.field == field


def test_a_digest_sees_changes_of_meaning_only(tmp_path: Path) -> None:
    template = templates.load(Kind.CHAT)
    spaced = template.xml.replace("><", ">\n  <")
    assert templates.digest(spaced) == template.digest
    assert templates.digest(template.xml.replace("Accept", "Approve")) != template.digest
    assert templates.digest("no xml") != template.digest


@pytest.mark.parametrize("body", ["<View/>", "<View", '<View className="mm-report-v1"/>'])
def test_a_configuration_without_a_version_is_refused(tmp_path: Path, body: str) -> None:
    (tmp_path / "chat.xml").write_text(body)
    (tmp_path / "style.css").write_text((FOLDER / "style.css").read_text())
    with pytest.raises(ConfigurationError, match=r"chat\.xml"):
        templates.load(Kind.CHAT, tmp_path)
