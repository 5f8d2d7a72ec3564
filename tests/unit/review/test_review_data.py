"""Items and verdicts as JSON, and interactions as items."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.core import Decision, Item, Kind, Picture, Reason, Region, Severity, Turn, Verdict
from annotation.store.audit import Entry
from annotation.store.codec import item_from_json, item_to_json, verdict_from_json, verdict_to_json
from annotation.store.conversion import to_item
from annotation.store.entries import item_key
from annotation.store.states import MOVES, NotAllowed, State, check_move
from services.errors import InvalidInput
from services.interactions.pictures import digest
from services.interactions.records import images
from services.pb.medmax.v1 import assistant_pb2
from tests.unit.interactions.samples import PROMPT_PICTURE, interaction

texts = st.text(max_size=20)
pictures = st.builds(Picture, sha256=texts, data=st.none(), synthetic=st.booleans())
parts = st.lists(st.one_of(texts, pictures), max_size=3).map(tuple)
items = st.builds(
    Item,
    id=texts,
    kind=st.sampled_from(Kind),
    dialogue=st.lists(st.builds(Turn, role=texts, parts=parts), max_size=3).map(tuple),
    answer=parts,
    alternatives=st.lists(parts, max_size=3).map(tuple),
    task=texts,
    modality=texts,
    speciality=texts,
    risk=st.floats(0, 1),
    reason=st.sampled_from(Reason),
    patient=texts,
)
shares = st.floats(0, 1)
regions = st.builds(
    Region, texts, texts, shares, shares, shares, shares, mask=st.none() | st.binary(max_size=30)
)
verdicts = st.builds(
    Verdict,
    decision=st.none() | st.sampled_from(Decision),
    text=st.none() | texts,
    severity=st.sampled_from(Severity),
    missing=st.lists(texts, max_size=2).map(tuple),
    realism=st.none() | st.integers(1, 5),
    ranking=st.lists(st.integers(0, 5), max_size=3).map(tuple),
    regions=st.lists(regions, max_size=2).map(tuple),
    comment=texts,
)


@given(items)
def test_items_come_back_from_json_without_a_gold_verdict(item: Item) -> None:
    document = json.loads(json.dumps(item_to_json(replace(item, gold=Verdict(comment="the right answer")))))
    assert "right answer" not in json.dumps(document)
    read = item_from_json(document, speciality=item.speciality, risk=item.risk, reason=item.reason)
    assert read == item


@given(verdicts)
def test_verdicts_come_back_from_json_exactly(verdict: Verdict) -> None:
    assert verdict_from_json(json.loads(json.dumps(verdict_to_json(verdict)))) == verdict


def test_an_interaction_is_an_item_with_its_pictures() -> None:
    answered = interaction("Yes.")
    answered.prompt.add(role=assistant_pb2.ROLE_SYSTEM).parts.add(text="Be brief.")
    for image in images(answered):
        image.sha256 = digest(image.data)
    item = to_item(answered, speciality="chest", risk=0.25, reason=Reason.FLAG)
    assert (item.id, item.kind, item.task) == (answered.id, Kind.CHAT, "vqa")
    assert (item.speciality, item.risk, item.reason) == ("chest", 0.25, Reason.FLAG)
    assert (item.model_id, item.model_digest) == ("medmax-phantom", "ab" * 32)
    assert [turn.role for turn in item.dialogue] == ["user", "system"]
    assert item.pictures == (Picture(digest(PROMPT_PICTURE), PROMPT_PICTURE, False),)
    assert item.answer == ("Yes.",)


def test_a_drawn_picture_makes_a_picture_item() -> None:
    answered = interaction("Here it is.", pictures=(b"drawn",))
    for image in images(answered):
        image.sha256 = digest(image.data)
    item = to_item(answered)
    assert (item.kind, item.task) == (Kind.PICTURE, "multimodal_generation")
    assert item.answer[1] == Picture(digest(b"drawn"), b"drawn", synthetic=True)
    assert to_item(answered, kind=Kind.CHAT).kind is Kind.CHAT


def test_an_interaction_without_bytes_or_words_is_refused() -> None:
    stored = interaction()
    stored.prompt[0].parts[0].image.ClearField("data")
    for wrong in (stored, assistant_pb2.Interaction()):
        with pytest.raises(InvalidInput):
            to_item(wrong)


@pytest.mark.parametrize(
    ("modality", "region", "expected"),
    [("DX", "CHEST", "chest_xray"), ("MR", "Knee", "mri"), ("XX", "", ""), (None, "", "")],
)
def test_a_dicom_header_tells_the_modality(modality: str | None, region: str, expected: str) -> None:
    if modality is None:
        data = bytes(128) + b"DICM" + b"\xff" * 64
    else:
        file = pydicom.Dataset()
        file.Modality, file.BodyPartExamined = modality, region
        file.file_meta = pydicom.dataset.FileMetaDataset()
        file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        out = io.BytesIO()
        pydicom.dcmwrite(out, file, enforce_file_format=False)
        data = bytes(128) + b"DICM" + out.getvalue().removeprefix(bytes(128) + b"DICM")
    answered = interaction()
    answered.prompt[0].parts[0].image.data = data
    assert to_item(answered).modality == expected


@pytest.mark.parametrize("wrong", ["", "a b", "a" * 61, "ä", "a:b"])
def test_an_id_of_another_shape_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        item_key(wrong, Kind.CHAT)
    assert refusal.value.field == "item.id"


def test_every_state_is_reached_and_only_withdrawal_is_final() -> None:
    reached = {State.ROUTED}
    while new := {to for state in reached for to in MOVES[state]} - reached:
        reached |= new
    assert reached == set(State)
    assert [state for state in State if not MOVES[state]] == [State.WITHDRAWN]
    assert all(State.WITHDRAWN in MOVES[state] for state in State if state is not State.WITHDRAWN)
    assert not check_move(State.BUILT, State.BUILT)
    with pytest.raises(NotAllowed, match="withdrawn cannot become routed"):
        check_move(State.WITHDRAWN, State.ROUTED)


@given(st.text(min_size=1, max_size=200))
def test_the_audit_takes_single_ascii_words_alone(text: str) -> None:
    from datetime import UTC, datetime

    fits = len(text) <= 128 and all(
        letter.isascii() and (letter.isalnum() or letter in "._:+/@-") for letter in text
    )
    try:
        Entry(datetime.now(UTC), "dr-9", "move", "chat:x", {}, {"why": text})
        assert fits
    except ValueError:
        assert not fits
