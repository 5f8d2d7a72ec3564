"""What a build keeps, leaves out and refuses, and that none of it depends on the order of the judgements."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from annotation.core import Decision, Judgement, Kind, Picture, Reason, Region, Turn, Verdict
from annotation.dataset.decontaminate import EvaluationSets
from annotation.dataset.policy import Policy
from annotation.dataset.split import Groups
from annotation.dataset.versions import ALL, Version, verify
from evaluation.phantoms import draw, held_out
from services.decoder.marking import is_synthetic
from services.errors import InvalidInput, Overloaded, PermissionDenied
from tests.support.judgements import NOON, builder, item, judge, picture, pixels
from tests.support.pictures import dicom

EOT = "<reserved08706>"
ALL_TRAIN = Policy(validation_share=0.0)


def records(version: Version) -> list[dict[str, Any]]:
    return [record for key in ALL for record in version.records(*key)]


def interactions(version: Version) -> set[str]:
    return {record["provenance"]["interaction"] for record in records(version)}


def dropped(version: Version) -> list[tuple[str, str, str]]:
    return [(entry["interaction"], entry["reason"], entry["because"]) for entry in version.dropped()]


def built(root: Path, *judgements: Judgement, **fields: Any) -> Version:
    return builder(root, **{"policy": ALL_TRAIN, **fields}).run(judgements)


def as_picture(data: bytes, synthetic: bool = False) -> Picture:
    return Picture(hashlib.sha256(data).hexdigest(), data, synthetic)


def encoded(array: Any, format: str = "PNG", **options: Any) -> bytes:
    target = BytesIO()
    Image.fromarray(array).save(target, format, **options)
    return target.getvalue()


def about(id: str, shown: Picture, question: str = "Is it normal?", **fields: Any) -> Any:
    return item(id, dialogue=(Turn("user", (shown, question)),), **fields)


# What is left out


def test_a_question_asked_twice_is_there_once_as_it_was_judged_last(tmp_path: Path) -> None:
    older = judge(item("a", answer=("yes",)), minutes=1)
    newer = judge(item("b", question="is it NORMAL", answer=("no",)), minutes=2)
    elsewhere = judge(item("c", shows=1), minutes=0)
    version = built(tmp_path, newer, older, elsewhere)
    assert interactions(version) == {"b", "c"}
    assert dropped(version) == [("a", "near_duplicate", "b")]


LONG = (
    "Please look carefully at this picture of the chest, which was taken in the emergency department after a fall from "
    "a ladder, and tell me in one short sentence whether there is a fracture of the {} ribs or anything else to be seen."
)


def test_a_long_question_with_a_word_changed_is_a_duplicate_but_never_with_a_side_number_or_negation(
    tmp_path: Path,
) -> None:
    texts = {
        "a": LONG.format("lateral"),
        "b": LONG.format("lateral").replace("carefully", "closely"),
        "c": LONG.format("left"),
        "d": LONG.format("right"),
        "e": LONG.format("3"),
        "f": LONG.format("lateral").replace("there is a", "there is no"),
    }
    version = built(
        tmp_path, *(judge(item(id, question=text), minutes=n) for n, (id, text) in enumerate(texts.items()))
    )
    assert dropped(version) == [("a", "near_duplicate", "b")]


def test_pictures_drawn_for_one_wish_are_no_duplicates(tmp_path: Path) -> None:
    drawn = [
        item(
            f"d{n}",
            question="Draw a chest.",
            shows=None,
            kind=Kind.PICTURE,
            answer=(picture(n, synthetic=True),),
        )
        for n in range(3)
    ]
    assert len(interactions(built(tmp_path, *map(judge, drawn)))) == 3


def test_of_two_judgements_of_an_item_the_newer_counts(tmp_path: Path) -> None:
    version = built(tmp_path, judge(item("a"), Decision.REJECT, minutes=2), judge(item("a"), minutes=1))
    assert [record["provenance"]["verdict"] for record in records(version)] == ["reject"]
    assert dropped(version) == [("a", "superseded", "a")]


def test_a_newer_judgement_without_a_row_still_supersedes(tmp_path: Path) -> None:
    version = built(
        tmp_path,
        judge(item("a"), minutes=1),
        judge(item("a"), Verdict(), minutes=2),
        judge(item("b", shows=3)),
    )
    assert interactions(version) == {"b"}
    assert dropped(version) == [("a", "no_decision", ""), ("a", "superseded", "a")]


def test_a_region_marked_in_two_items_is_one_row(tmp_path: Path) -> None:
    marked = (Region(picture(0).sha256, "mass", 0, 0, 0.5, 0.5),)
    first = judge(item("a", question="What is it?"), Verdict(Decision.ACCEPT, regions=marked), minutes=1)
    second = judge(item("b", question="Is it normal?"), Verdict(Decision.ACCEPT, regions=marked), minutes=2)
    version = built(tmp_path, first, second)
    texts = [record["text"] for record in records(version)]
    assert len(texts) == len(set(texts)) == 4
    assert dropped(version) == [("a", "repeated_row", "b")] * 2


def test_gold_items_give_nothing_unless_policy_says_so(tmp_path: Path) -> None:
    gold, other = judge(item("g", reason=Reason.GOLD, shows=1)), judge(item("a"))
    version = built(tmp_path, gold, other)
    assert (interactions(version), dropped(version)) == ({"a"}, [("g", "gold", "")])
    assert interactions(built(tmp_path, gold, other, policy=replace(ALL_TRAIN, gold=True))) == {"a", "g"}


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (Picture("0" * 64), "picture_missing"),
        (Picture("0" * 64, picture(1).data), "picture_damaged"),
        (as_picture(b"GIF89a and no more"), "picture_unreadable"),
        (as_picture((picture(1).data or b"")[:200]), "picture_unreadable"),
    ],
)
def test_a_picture_that_cannot_be_had_drops_its_judgement_by_name(
    tmp_path: Path, shown: Picture, reason: str
) -> None:
    version = built(tmp_path, judge(about("bad", shown)), judge(item("good")))
    assert (interactions(version), dropped(version)) == ({"good"}, [("bad", reason, "")])


def test_pictures_that_travel_by_digest_are_fetched(tmp_path: Path) -> None:
    shown = picture(1)
    version = built(
        tmp_path,
        judge(about("a", Picture(shown.sha256))),
        fetch=lambda sha256: shown.data if sha256 == shown.sha256 else None,
    )
    (record,) = records(version)
    assert (np.asarray(Image.open(version.path / record["image_path"][0]).convert("RGB")) == pixels(1)).all()


def test_text_that_no_file_can_hold_drops_its_judgement_alone(tmp_path: Path) -> None:
    broken = judge(item("half", question="half \ud800", answer=("\udfff",), patient="\ud800", shows=1))
    version = built(tmp_path, broken, judge(item("whole")))
    assert (interactions(version), dropped(version)) == ({"whole"}, [("half", "half_of_a_character", "")])


# What is refused


def test_an_interaction_without_consent_ends_the_build_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(PermissionDenied, match="int_2"):
        builder(tmp_path, consent=lambda id: id != "int_2").run(
            [judge(item("int_1")), judge(item("int_2", shows=2))]
        )
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_text_that_identifies_ends_the_build_naming_the_interaction_and_never_the_text(
    tmp_path: Path,
) -> None:
    def check(text: str) -> list[str]:
        return ["NAME", "text: Schmidt"] if "Schmidt" in text else []

    judgements = [
        judge(item("int_1")),
        judge(item("int_2", shows=2), Verdict(Decision.EDIT, text="as Dr Schmidt said")),
        judge(
            item("int_3", shows=3, kind=Kind.REPORT), Verdict(Decision.ACCEPT, missing=("Schmidt's sign",))
        ),
    ]
    with pytest.raises(InvalidInput) as caught:
        builder(tmp_path, check_text=check).run(judgements)
    said = str(caught.value)
    assert all(part in said for part in ("int_2: NAME", "int_3: NAME", "2 interactions"))
    assert "Schmidt" not in said.replace("text: Schmidt", "")
    assert "int_1" not in said
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_every_text_of_every_file_is_checked(tmp_path: Path) -> None:
    seen: list[str] = []

    def check(text: str) -> list[str]:
        seen.append(text)
        return []

    alternatives = (("one way",), ("another way",))
    built(
        tmp_path,
        judge(item("a", question="asked1"), Verdict(Decision.EDIT, text="corrected1")),
        judge(item("b", question="asked2", answer=("rejected2",)), Decision.REJECT),
        judge(item("c", question="asked3", kind=Kind.PREFERENCE, alternatives=alternatives), Verdict(ranking=(1, 0))),
        check_text=check,
    )  # fmt: skip
    for text in ("asked1", "corrected1", "asked2", "rejected2", "asked3", "one way", "another way"):
        assert any(text in one for one in seen), text


def test_judgements_that_give_nothing_make_no_version(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="1 gold"):
        built(tmp_path, judge(item("a", reason=Reason.GOLD)))


def test_one_build_at_a_time(tmp_path: Path) -> None:
    def another() -> Any:
        yield judge(item("a"))
        with pytest.raises(Overloaded):
            built(tmp_path, judge(item("b")))

    assert interactions(builder(tmp_path).run(another())) == {"a"}


# Pictures


def test_of_a_file_nothing_but_pixels_is_kept(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "JOHN DOE 1950-01-01"
    data = encoded(pixels(1), "JPEG", exif=exif, comment=b"JOHN DOE")
    scan = dicom(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64), PatientName="DOE^JOHN")
    version = built(
        tmp_path, judge(about("a", as_picture(data + b"JOHN DOE"))), judge(about("b", as_picture(scan)))
    )
    files = list((version.path / "images").iterdir())
    assert len(files) == 2
    assert all(file.read_bytes().startswith(b"\x89PNG") and b"DOE" not in file.read_bytes() for file in files)


def test_a_drawn_picture_says_that_it_is_synthetic(tmp_path: Path) -> None:
    drawn = item("a", shows=1, answer=(picture(2, synthetic=True),), kind=Kind.PICTURE)
    version = built(tmp_path, judge(drawn))
    marks = {
        file.name.endswith("-synthetic.png"): is_synthetic(file.read_bytes())
        for file in (version.path / "images").iterdir()
    }
    assert marks == {True: True, False: False}


def test_pictures_of_judgements_that_were_dropped_are_not_kept(tmp_path: Path) -> None:
    version = built(tmp_path, judge(item("a", shows=1), Verdict()), judge(item("b", shows=2)))
    assert len(list((version.path / "images").iterdir())) == 1
    assert verify(version) == []


# Evaluation sets


def evaluation(folder: Path, rows: list[dict[str, Any]]) -> EvaluationSets:
    folder.mkdir(exist_ok=True)
    (folder / "eval.jsonl").write_text(
        "".join(json.dumps({"task_name": "vqa_rad", "question_type": "open", **row}) + "\n" for row in rows)
    )
    sets = EvaluationSets()
    sets.add_data(folder)
    return sets


def test_a_picture_of_an_evaluation_set_is_never_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "eval"
    folder.mkdir()
    Image.fromarray(pixels(1)).save(folder / "1.png")
    sets = evaluation(folder, [
        {"prompt": "What is abnormal here?", "answer": "a mass", "image_path": "1.png"},
        {"prompt": "gone", "answer": "-", "image_path": "gone.png"},
    ])  # fmt: skip
    enlarged = np.asarray(Image.fromarray(pixels(1)).resize((80, 80), Image.Resampling.BICUBIC))
    judgements = [
        judge(about("digest", as_picture(encoded(pixels(1), "BMP")), "Anything?")),
        judge(about("asked", picture(1), "what is ABNORMAL here")),
        judge(about("jpeg", as_picture(encoded(pixels(1), "JPEG", quality=80)), "Anything?")),
        judge(about("enlarged", as_picture(encoded(enlarged)), "Anything?")),
        judge(item("drawn", shows=None, kind=Kind.PICTURE, answer=(picture(1, synthetic=True),))),
        judge(about("clean", picture(2), "What is abnormal here?")),
    ]
    version = built(tmp_path / "root", *judgements, evaluation=sets)
    assert interactions(version) == {"clean"}
    assert dropped(version) == [
        ("asked", "evaluation_question", "eval/eval.jsonl:1"),
        *((id, "evaluation_picture", "eval/eval.jsonl:1") for id in ("digest", "drawn", "enlarged", "jpeg")),
    ]
    (source,) = version.manifest["evaluation"]
    assert (source["rows"], source["pictures"], source["unreadable"]) == (1, 1, {"rows": 1, "pictures": 0})
    assert {path.name for path in (version.path / "images").iterdir()} == {
        Path(record["image_path"][0]).name for record in records(version)
    }


def test_text_without_pictures_is_compared_by_runs_of_words_and_short_text_whole(tmp_path: Path) -> None:
    passage = "a fracture of the distal radius with dorsal angulation seen in elderly patients after a fall"
    sets = evaluation(tmp_path / "eval", [
        {"prompt": f"Explain {passage}.", "answer": "…"}, {"prompt": "What is a cyst?", "answer": "a bag"},
    ])  # fmt: skip
    texts = {
        "run": f"My student asks: what is {passage}, and why?",
        "whole": "what is a CYST",
        "part": "What is a cyst made of?",
        "few": "a fracture of the distal radius with dorsal angulation",
    }
    version = built(
        tmp_path / "root", *(judge(item(id, question=text, shows=None)) for id, text in texts.items()),
        judge(item("shown", question="What is a cyst?", shows=1)), evaluation=sets,
    )  # fmt: skip
    assert dropped(version) == [
        ("run", "evaluation_text", "eval/eval.jsonl:1"), ("whole", "evaluation_text", "eval/eval.jsonl:2"),
    ]  # fmt: skip


def test_held_out_phantoms_are_never_trained_on_and_others_are(tmp_path: Path) -> None:
    sets = EvaluationSets()
    sets.add_phantoms(seed=3, count=4)
    (held,) = held_out(3, 1)
    shown = {"held": draw(held).picture, "other": draw(5).picture, "another": draw(6).picture}
    version = built(
        tmp_path,
        *(judge(about(id, as_picture(encoded(array)))) for id, array in shown.items()),
        evaluation=sets,
    )
    assert interactions(version) == {"other", "another"}
    assert dropped(version) == [("held", "evaluation_picture", f"phantom {held}")]


# Splits


def test_a_patient_and_a_picture_lie_on_one_side_also_through_others(tmp_path: Path) -> None:
    # Item n shows pictures n and n + 1 in steps of three, and every fifth is of the patient of the one before.
    judgements = []
    for n in range(40):
        shown = (picture(n), picture(n + 1)) if n % 3 else (picture(n),)
        patient = f"p{n // 5}" if n % 5 < 2 else ""
        judgements.append(
            judge(item(f"i{n:02}", dialogue=(Turn("user", (*shown, f"What is {n}?")),), patient=patient))
        )
    version = builder(tmp_path, policy=Policy(validation_share=0.5)).run(judgements)
    sides: dict[str, set[str]] = {}
    for split in ("train", "validation"):
        for row in version.records("rows", split):
            n = int(row["provenance"]["interaction"][1:])
            for key in (*row["image_path"], judgements[n].item.patient):
                sides.setdefault(key, set()).add(split)
    sides.pop("")
    assert set(map(len, sides.values())) == {1}
    assert {split for side in sides.values() for split in side} == {"train", "validation"}


members = st.lists(
    st.tuples(st.sampled_from(["", "p0", "p1", "p2"]), st.lists(st.integers(0, 12).map(str), max_size=3), st.integers(0, 99).map(str)),
    min_size=1, max_size=25,
)  # fmt: skip


@settings(deadline=None)
@given(members, st.randoms(use_true_random=False))
def test_a_split_depends_on_no_order_and_never_parts_a_group(given: list[Any], random: Any) -> None:
    def sides(order: list[Any]) -> dict[str, bool]:
        groups = Groups("salt")
        for one in order:
            groups.join(*one)
        return {json.dumps(one): groups.held(*one, share=0.5) for one in order}

    shuffled = random.sample(given, len(given))
    found = sides(given)
    assert found == sides(shuffled)
    for one in given:
        for other in given:
            if set(one[1]) & set(other[1]) or (one[0] and one[0] == other[0]):
                assert found[json.dumps(one)] == found[json.dumps(other)]


def test_what_is_held_out_stays_so_when_data_is_added_and_the_share_is_kept() -> None:
    groups = Groups("salt")
    first = [(f"p{n}", [f"x{n}"], f"i{n}") for n in range(2000)]
    for one in first:
        groups.join(*one)
    before = [groups.held(*one, share=0.1) for one in first]
    for n in range(2000):  # more pictures of the same patients, and other patients
        groups.join(f"p{n}", [f"y{n}"], f"j{n}")
        groups.join(f"q{n}", [f"z{n}"], f"k{n}")
    assert [groups.held(*one, share=0.1) for one in first] == before
    assert 140 <= sum(before) <= 260


# Order


@st.composite
def batches(draw: Any) -> list[Judgement]:
    made = []
    for _ in range(draw(st.integers(1, 6))):
        given = item(
            f"int_{draw(st.integers(0, 3))}",
            question=draw(st.sampled_from(["Is it normal?", "is it normal", "What is it?", ""])),
            shows=draw(st.sampled_from([None, 0, 1])),
            answer=draw(st.sampled_from([("yes",), ("no",), (picture(4, synthetic=True),)])),
            kind=draw(st.sampled_from([Kind.CHAT, Kind.REPORT])),
            patient=draw(st.sampled_from(["", "p"])),
        )
        verdict = draw(st.sampled_from([
            Verdict(Decision.ACCEPT), Verdict(Decision.REJECT), Verdict(Decision.EDIT, text="a mass"), Verdict(),
        ]))  # fmt: skip
        made.append(judge(given, verdict, minutes=draw(st.integers(0, 2))))
    return made


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches(), st.randoms(use_true_random=False))
def test_the_same_judgements_in_any_order_and_twice_are_the_same_version(
    tmp_path_factory: pytest.TempPathFactory, made: list[Judgement], random: Any
) -> None:
    made.append(judge(item("sure", shows=7)))
    one = builder(tmp_path_factory.mktemp("one")).run(made)
    other = builder(tmp_path_factory.mktemp("other")).run(random.sample(made * 2, len(made) * 2))
    assert one.digest == other.digest
    assert list(one.dropped()) == list(other.dropped())
    assert {
        name: entry for name, entry in one.manifest["files"].items() if name.endswith((".jsonl", ".png"))
    } == {name: entry for name, entry in other.manifest["files"].items() if name.endswith((".jsonl", ".png"))}


def test_a_judgement_needs_a_time_zone(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="made_at"):
        built(tmp_path, judge(item("a"), made_at=NOON.replace(tzinfo=None)))
