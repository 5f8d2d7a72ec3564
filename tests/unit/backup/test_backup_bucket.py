"""An archive in a bucket."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from annotation.backup.archive import Archive
from annotation.backup.create import create
from annotation.backup.restore import restore
from services.errors import InvalidInput, NotFound
from services.interactions import InteractionStore
from tests.support.bucket import Objects, s3
from tests.unit.backup.behaviour import check_pictures, fill, rows, save
from tests.unit.interactions.samples import settings_in

__all__ = ["s3"]
ARCHIVE = "s3://bucket/backups"


def test_everything_comes_back_from_a_bucket(s3: ThreadingHTTPServer, tmp_path: Path) -> None:
    here = settings_in(tmp_path / "here", object_store="s3://bucket/pictures")
    there = settings_in(tmp_path / "there", object_store="s3://bucket/elsewhere")
    fill(here, model_bytes=1000)
    first = create(here, ARCHIVE)
    assert Archive.open(ARCHIVE).names() == [first.name]
    restore(there, ARCHIVE)
    assert rows(there) == rows(here)
    assert check_pictures(there) == check_pictures(here) > 10


def test_a_flipped_bit_in_a_bucket_is_found_and_named(s3: ThreadingHTTPServer, tmp_path: Path) -> None:
    here = settings_in(tmp_path)
    fill(here, model_bytes=1000)
    archive = Archive.open(ARCHIVE)
    manifest = archive.load(create(here, ARCHIVE).name)
    victim = manifest.pictures[""][0]
    key = f"/bucket/backups/blobs/{victim[:2]}/{victim}"
    Objects.kept[key] = Objects.kept[key][:-1] + bytes([Objects.kept[key][-1] ^ 1])
    assert archive.damaged(manifest) == [f"picture {victim}"]
    with pytest.raises(InvalidInput, match=victim):
        restore(settings_in(tmp_path / "there"), ARCHIVE)


def test_old_ones_go_from_a_bucket(s3: ThreadingHTTPServer, tmp_path: Path) -> None:
    here = settings_in(tmp_path)
    store = InteractionStore.open(here)
    save(store)
    archive = Archive.open(ARCHIVE)
    old = create(here, ARCHIVE).name
    # As if it had been made long ago.
    manifest = archive.load(old).model_copy(update={"made_at": datetime.now(UTC) - timedelta(days=9)})
    older = archive.add(manifest)
    Objects.kept.pop(f"/bucket/backups/backups/{old}")
    store.purge(datetime.now(UTC) + timedelta(days=60))
    save(store)
    store.close()
    made = create(here, ARCHIVE, keep_days=7)
    assert made.pruned == 1
    assert archive.names() == [made.name]
    assert archive.damaged(archive.load(made.name)) == []
    needed = set(archive.load(made.name).pictures[""])
    unneeded = set(manifest.pictures[""]) - needed
    assert unneeded
    assert not [each for each in unneeded if archive.blobs.has(each)]
    with pytest.raises(NotFound):
        archive.find(older)
