"""An archive may come from anywhere: what its manifest says is checked before anything is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.backup.archive import Archive
from annotation.backup.manifest import Manifest
from annotation.backup.restore import restore
from services.errors import InvalidInput
from services.interactions.pictures import digest
from tests.unit.interactions.samples import settings_in

WHOLE = {
    "format": "medmax-backup-1",
    "made_at": "2026-11-26T00:00:00Z",
    "program": "0.1.0",
    "revisions": {"alembic_version": "0002"},
    "pictures": {"": [], "review": []},
    "data_dir": "/data",
}
EMPTY = {"bytes": 0, "blobs": []}


def test_a_whole_one_is_read() -> None:
    assert Manifest.parse(json.dumps(WHOLE).encode()).revisions == {"alembic_version": "0002"}


@pytest.mark.parametrize(
    "change",
    [
        {"format": "medmax-backup-2"},
        {"files": [{"path": "../outside", "content": EMPTY}]},
        {"files": [{"path": "/etc/passwd", "content": EMPTY}]},
        {"files": [{"path": "a/../../b", "content": EMPTY}]},
        {"files": [{"path": "", "content": EMPTY}]},
        {"files": [{"path": "a", "content": {"bytes": 1, "blobs": ["../../x"]}}]},
        {"pictures": {"": ["not a digest"]}},
        {"pictures": {"elsewhere": []}},
        {"tables": [{"name": "x; DROP TABLE y", "columns": ["a"], "content": EMPTY}]},
        {"tables": [{"name": "feedback", "columns": ['a") FROM PROGRAM'], "content": EMPTY}]},
        {"revisions": {"alembic_version": "head; x"}},
        {"more": 1},
    ],
    ids=lambda change: json.dumps(change)[:60],
)
def test_one_that_asks_for_more_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as refused:
        Manifest.parse(json.dumps({**WHOLE, **change}).encode())
    assert refused.value.field == "archive"
    assert "DROP" not in refused.value.message


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_whatever_it_is_it_is_read_or_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        Manifest.parse(data)


@pytest.mark.parametrize("kind", ["tables", "sqlite"])
def test_a_file_beside_the_data_folder_is_never_written(tmp_path: Path, kind: str) -> None:
    archive = Archive.open(str(tmp_path / "archive"), make=True)
    body = {**WHOLE, "files": [{"path": "x/../../escaped", "content": EMPTY}]}
    if kind == "sqlite":
        body["sqlite"] = EMPTY
    data = json.dumps(body).encode()
    archive.keep(data)
    backups = tmp_path / "archive" / "backups"
    backups.mkdir()
    (backups / f"20261126T000000Z-{digest(data)}").touch()
    with pytest.raises(InvalidInput):
        restore(settings_in(tmp_path), str(tmp_path / "archive"))
    assert not (tmp_path / "escaped").exists()
