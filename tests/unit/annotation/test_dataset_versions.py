"""Versions on disk: what they hold, that they do not change, what differs between two, and who can read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from annotation.core import Decision, Kind, Verdict
from annotation.dataset.cli import app
from annotation.dataset.diff import diff, text
from annotation.dataset.export import export
from annotation.dataset.policy import Policy
from annotation.dataset.versions import ALL, Version, file_digest, file_name, list_versions, load, verify
from services.errors import InvalidInput, MedMaxError, NotFound
from tests.support.judgements import builder, item, judge, picture

POLICY = Policy(name="ward 7", licence="https://example.org/licence", validation_share=0.3, salt="b")
RANKED = item("ranked", shows=20, kind=Kind.PREFERENCE, alternatives=(("good",), ("bad",)))
JUDGEMENTS = [
    *(judge(item(f"int_{n}", shows=n, modality="chest_xray", answer=("yes", picture(30 + n, synthetic=True)))) for n in range(8)),
    judge(item("edited", shows=10), Verdict(Decision.EDIT, text="no")),
    judge(item("rejected", shows=11), Decision.REJECT, agreement=0.5),
    judge(RANKED, Verdict(ranking=(0, 1))),
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="module")
def version(root: Path) -> Version:
    return builder(root, policy=POLICY).run(JUDGEMENTS)


@pytest.fixture(scope="module")
def later(root: Path, version: Version) -> Version:
    """`edited` corrected otherwise, `rejected` gone, `new` added."""
    changed = [
        judge(item("edited", shows=10), Verdict(Decision.EDIT, text="a mass"), minutes=9) if given.item.id == "edited" else given
        for given in JUDGEMENTS
        if given.item.id != "rejected"
    ]  # fmt: skip
    return builder(root, policy=POLICY, parents=[version.digest]).run(
        [*changed, judge(item("new", shows=12))]
    )


def test_a_version_is_whole_and_every_record_names_it(version: Version) -> None:
    assert verify(version) == []
    assert version.id == version.digest[:12] == version.path.name
    counts = version.manifest["counts"]
    found = {file_name(*key): list(version.records(*key)) for key in ALL}
    for name, records in found.items():
        assert counts[name] == len(records)
        assert all(record["provenance"]["dataset_version"] == version.id for record in records)
    assert counts["rows.jsonl"] + counts["rows-validation.jsonl"] == 9
    assert counts["rows-validation.jsonl"] > 0


def test_the_card_says_what_is_inside_and_what_it_must_not_be_used_for(version: Version) -> None:
    card = (version.path / "README.md").read_text()
    for part in (
        "ward 7",
        "chest_xray",
        "11 judgements",
        version.digest,
        "Not for diagnosis",
        POLICY.consent,
        "https://example.org/licence",
    ):
        assert part in card
    facts = version.manifest["facts"]
    assert facts["agreement"] == {"judgements": 11, "mean": round((10 + 0.5) / 11, 4), "adjudicated": 0}
    assert facts["strata"]["decision"] == {"accept": 8, "edit": 1, "rank": 1, "reject": 1}


def test_building_the_same_again_changes_nothing(root: Path, version: Version) -> None:
    before = (version.path / "manifest.json").stat()
    again = builder(root, policy=POLICY).run(reversed(JUDGEMENTS))
    assert again.path == version.path
    assert (version.path / "manifest.json").stat() == before


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("rows.jsonl", lambda data: data.replace(b"yes", b"no "), "rows.jsonl: is not what was written"),
        ("README.md", lambda data: data + b" ", "README.md: is not what was written"),
        ("dropped.jsonl", None, "dropped.jsonl: is missing"),
        ("images/more.png", lambda data: b"x", "images/more.png: does not belong there"),
    ],
)
def test_verify_finds_what_was_changed(tmp_path: Path, name: str, change: Any, said: str) -> None:
    made = builder(tmp_path, policy=POLICY).run(JUDGEMENTS[:3])
    file = made.path / name
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change(file.read_bytes() if file.exists() else b""))
    assert said in verify(load(tmp_path, made.id))


def test_verify_finds_records_changed_together_with_the_manifest(tmp_path: Path) -> None:
    made = builder(tmp_path, policy=Policy(validation_share=0.0)).run(JUDGEMENTS[:3])
    rows = made.file("rows")
    rows.write_bytes(rows.read_bytes().replace(b"yes", b"no "))
    made.manifest["files"]["rows.jsonl"]["sha256"] = file_digest(rows)
    (made.path / "manifest.json").write_text(json.dumps(made.manifest))
    assert verify(load(tmp_path, made.id)) == ["the records do not have the version's digest"]


def test_versions_are_found_by_their_first_digits_and_the_latest_by_its_time(
    root: Path, version: Version, later: Version
) -> None:
    assert {found.id for found in list_versions(root)} == {version.id, later.id}
    assert load(root, version.id[:6]).digest == load(root, version.digest).digest == version.digest
    assert load(root, "latest").manifest["created_at"] == max(
        found.manifest["created_at"] for found in list_versions(root)
    )
    assert later.manifest["parents"] == [version.digest]


@pytest.mark.parametrize("asked", ["", "abc", "../../etc", "ABCDEF", "g" * 12, "a" * 65])
def test_what_is_no_digest_is_refused(root: Path, asked: str) -> None:
    with pytest.raises(InvalidInput, match="version"):
        load(root, asked)


def test_an_unknown_version_is_not_found(root: Path, version: Version) -> None:
    other = version.digest[:-1] + ("0" if version.digest[-1] != "0" else "1")
    for asked in (other, "0" * 12 if version.id != "0" * 12 else "1" * 12):
        with pytest.raises(NotFound):
            load(root, asked)
    with pytest.raises(NotFound):
        load(root / "nowhere", "latest")


def test_a_difference_is_told_by_interaction(version: Version, later: Version) -> None:
    changes = {change.interaction: change for change in diff(version, later)}
    assert {name: change.what for name, change in changes.items()} == {
        "edited": "changed", "new": "added", "rejected": "removed",
    }  # fmt: skip
    edited = changes["edited"]
    said = {record.get("text") or record["chosen"] for _, record in edited.after}
    assert said == {"a mass", "<image>Is it normal?<reserved08706>a mass"}
    assert len(edited.before) == len(edited.after) == 2
    lines = list(text(diff(version, later)))
    assert [line for line in lines if not line.startswith(" ")] == ["~ edited", "+ new", "- rejected"]
    assert list(diff(version, version)) == []


def test_datasets_reads_a_version_and_its_splits(version: Version, tmp_path: Path) -> None:
    from datasets import load_dataset

    rows = load_dataset(str(version.path), "rows", cache_dir=str(tmp_path))
    for split, found in rows.items():
        assert list(found) == list(version.records("rows", split))
    pairs = load_dataset(str(version.path), "preferences", cache_dir=str(tmp_path))
    assert sum(len(found) for found in pairs.values()) == 2


def test_datasets_reads_an_export_with_its_pictures(version: Version, tmp_path: Path) -> None:
    from datasets import load_dataset

    result = export(version, str(tmp_path / "out"))
    assert result["records"]["rows/train.parquet"] == version.manifest["counts"]["rows.jsonl"]
    train = load_dataset(str(tmp_path / "out"), "rows", split="train", cache_dir=str(tmp_path / "cache"))
    for record, original in zip(train, version.records("rows"), strict=True):
        shown = record.pop("images")
        assert record == original
        for path, image in zip(original["image_path"], shown, strict=True):
            expected = np.asarray(Image.open(version.path / path).convert("RGB"))
            assert (np.asarray(image.convert("RGB")) == expected).all()
    with pytest.raises(InvalidInput, match="not empty"):
        export(version, str(tmp_path / "out"))


def test_an_export_goes_to_any_store(version: Version) -> None:
    import fsspec

    export(version, "memory://shared/out")
    assert fsspec.filesystem("memory").exists("/shared/out/rows/train.parquet")


def test_the_metadata_is_croissant_and_leads_to_the_records(version: Version) -> None:
    import mlcroissant

    dataset = mlcroissant.Dataset(str(version.path / "croissant.json"))
    assert not dataset.metadata.issues.errors
    assert not dataset.metadata.issues.warnings
    found = list(dataset.records("rows"))
    texts = [record["rows/text"].decode() for record in found]
    assert texts == [record["text"] for record in version.records("rows")]


def run(root: Path, *arguments: str, status: int = 0) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--root", str(root), "--json"])
    assert done.exit_code == status, done.output
    return json.loads(done.stdout)


def test_every_command_prints_one_document(
    root: Path, version: Version, later: Version, tmp_path: Path
) -> None:
    assert {found["digest"] for found in run(root, "list")["versions"]} == {version.digest, later.digest}
    assert run(root, "show", version.id)["policy"]["name"] == "ward 7"
    assert {change["change"] for change in run(root, "diff", version.id, later.id)["changes"]} == {
        "added", "changed", "removed",
    }  # fmt: skip
    assert run(root, "verify", version.id) == {"digest": version.digest, "ok": True, "wrong": []}
    assert run(root, "export", version.id, "--out", str(tmp_path / "out"))["version"] == version.id
    for command in (["list"], ["show", version.id], ["diff", version.id, later.id], ["verify", version.id]):
        done = CliRunner().invoke(app, [*command, "--root", str(root)])
        assert done.exit_code == 0
        assert done.stdout


def test_verify_fails_where_something_is_wrong(tmp_path: Path) -> None:
    made = builder(tmp_path).run(JUDGEMENTS[:2])
    (made.path / "dropped.jsonl").write_text("{}\n")
    assert run(tmp_path, "verify", made.id, status=1)["wrong"] == ["dropped.jsonl: is not what was written"]


def test_an_unknown_version_is_an_error_of_the_tree(root: Path, version: Version) -> None:
    done = CliRunner().invoke(app, ["show", "0123456789ab", "--root", str(root)])
    assert isinstance(done.exception, MedMaxError)
