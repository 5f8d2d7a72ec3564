"""Gold items come in from a file, without identifiers, and their verdicts go nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from annotation.commands import gold
from annotation.core import Decision, Kind, Picture, Reason, Verdict
from annotation.loop.gold import MAX_LINE_BYTES, read
from evaluation.phantoms import draw
from services.config import load
from services.errors import InvalidInput
from tests.support.review_films import png
from tests.unit.annotation.loop_samples import loop_in

CHAT: dict[str, Any] = {
    "id": "effusion-1",
    "kind": "chat",
    "dialogue": [{"role": "user", "parts": [{"picture": "film.png"}, "Which side is it on?"]}],
    "answer": ["The left side."],
    "verdict": {
        "decision": "edit",
        "text": "The right side.",
        "error": "wrong_attribute",
        "severity": "major",
    },
}
RANKED = {
    **CHAT,
    "kind": "preference",
    "alternatives": [["The left side."], ["The right side."]],
    "verdict": {"ranking": [1, 0]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "film.png").write_bytes(png(draw(7_000_001)))
    return tmp_path


def listed(folder: Path, *items: object) -> Path:
    file = folder / "gold.jsonl"
    file.write_text("".join(json.dumps(item) + "\n\n" for item in items))
    return file


def test_a_file_is_read_with_its_pictures(folder: Path) -> None:
    (line, chat), (_, ranked) = read(listed(folder, CHAT, RANKED), load(data_dir=folder))
    assert (line, chat.id, chat.kind, chat.reason) == (1, "effusion-1", Kind.CHAT, Reason.GOLD)
    assert chat.gold is not None
    assert (chat.gold.decision, chat.gold.text) == (Decision.EDIT, "The right side.")
    (film, question) = chat.dialogue[0].parts
    assert isinstance(film, Picture)
    assert film.data == (folder / "film.png").read_bytes()
    assert question == "Which side is it on?"
    assert ranked.gold == Verdict(ranking=(1, 0))


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"id": "no spaces"}, "line 2: id"),
        ({"kind": "poem"}, "line 2: kind"),
        ({"answer": []}, "line 2: answer"),
        ({"answer": ["x" * 20_001]}, "line 2: answer"),
        ({"name": "Meyer"}, "line 2: name"),
        ({"dialogue": [{"role": "user", "parts": [{"picture": "none.png"}]}]}, "line 2: picture"),
        ({"verdict": {"decision": "edit"}}, "line 2"),
        ({"verdict": {"decision": "accept", "text": "No."}}, "line 2"),
        ({"verdict": {"ranking": [0, 1]}}, "line 2"),
        ({"kind": "picture", "verdict": {"decision": "accept"}}, "line 2"),
        ({**RANKED, "verdict": {"ranking": [0, 0]}}, "line 2"),
        ({"verdict": {"decision": "accept", "realism": 6}}, "line 2: verdict.realism"),
        ({"id": CHAT["id"]}, "line 2: id"),  # the same again
    ],
)
def test_what_is_wrong_is_named_by_line_and_field(folder: Path, changed: dict[str, Any], where: str) -> None:
    file = folder / "gold.jsonl"
    file.write_text(f"{json.dumps(CHAT)}\n{json.dumps(CHAT | {'id': 'other'} | changed)}\n")
    with pytest.raises(InvalidInput) as raised:
        list(read(file, load(data_dir=folder)))
    assert raised.value.field is not None
    assert raised.value.field.startswith(where)
    assert "Meyer" not in str(raised.value)


@pytest.mark.parametrize("line", [b"{", b"[]", b"\xff\xfe", b'"' + b"x" * MAX_LINE_BYTES + b'"'])
def test_a_line_that_is_no_item_is_refused(folder: Path, line: bytes) -> None:
    (folder / "gold.jsonl").write_bytes(line)
    with pytest.raises(InvalidInput, match="line 1"):
        list(read(folder / "gold.jsonl", load(data_dir=folder)))


def test_gold_is_added_without_identifiers_once_somebody_looked_at_what_is_in_doubt(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDMAX_DATA_DIR", str(folder / "var"))

    def said() -> Any:
        return json.loads(capfd.readouterr().out)

    doubtful = {
        **CHAT,
        "id": "doubtful",
        "answer": ["On 12/03/2021 there are Frobnitz changes on the left side."],
    }
    file = listed(folder, CHAT, doubtful)
    with pytest.raises(InvalidInput) as refused:
        gold.add(file, json=True)
    assert refused.value.field == "line 3"
    assert "Frobnitz" not in str(refused.value)
    with loop_in(folder) as loop:
        assert not loop.store.items.gold_page(), "one in doubt stops all"
    gold.add(file, looked=True, json=True)
    assert said() == {"added": ["chat:effusion-1", "chat:doubtful"], "known": [], "identifiers_removed": 1}
    with loop_in(folder) as loop:
        kept = loop.store.items.load("chat:doubtful", pictures=True)
        assert kept.answer == ("On [DATE] there are Frobnitz changes on the left side.",)
        assert kept.gold is None
        assert loop.store.items.gold_verdict("chat:doubtful").text == "The right side."
    gold.remove("chat:doubtful", json=True)
    assert said() == {"item": "chat:doubtful", "state": "withdrawn"}
    gold.list_(json=True)
    (left,) = said()["gold"]
    assert left == {"item": "chat:effusion-1", "state": "cleaned", "speciality": "general", "done": 0}
    with pytest.raises(InvalidInput, match="was removed"):
        gold.add(file, looked=True, json=True)
