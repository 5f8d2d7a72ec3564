"""The store of interactions on SQLite and a folder, which is what it uses by default."""

from __future__ import annotations

import logging
import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.config import Settings
from services.errors import ConfigurationError, InternalError, Unavailable
from services.interactions import InteractionStore
from tests.unit.interactions.behaviour import StoreBehaviour
from tests.unit.interactions.samples import interaction, settings_in


class TestSqlite(StoreBehaviour):
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return settings_in(tmp_path)


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "nonsense"])
def test_a_database_of_another_kind_is_refused_with_its_setting(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        InteractionStore.open(settings_in(tmp_path, database_url=address))
    assert refusal.value.field == "MEDMAX_DATABASE_URL"
    assert "secret" not in str(refusal.value)


def test_an_unknown_object_store_is_refused_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        InteractionStore.open(settings_in(tmp_path, object_store="warehouse://bucket"))
    assert refusal.value.field == "MEDMAX_OBJECT_STORE"


@pytest.mark.parametrize(
    ("changed", "field"), [("object_store", "MEDMAX_OBJECT_STORE"), ("data_dir", "MEDMAX_DATA_DIR")]
)
def test_a_folder_that_cannot_be_made_is_refused_with_its_setting(
    tmp_path: Path, changed: str, field: str
) -> None:
    (tmp_path / "file").touch()
    settings = settings_in(tmp_path).model_copy(
        update={changed: type(getattr(Settings(), changed))(tmp_path / "file" / "x")}
    )
    with pytest.raises(ConfigurationError, match="cannot be made") as refusal:
        InteractionStore.open(settings)
    assert refusal.value.field == field


async def test_any_store_of_fsspec_holds_the_pictures(tmp_path: Path) -> None:
    store = InteractionStore.open(settings_in(tmp_path, object_store="memory://pictures-of-a-test"))
    saved = interaction(pictures=(b"film",))
    await store.save(saved)
    await store.check_health()
    read = await store.get(saved.id, "radiology", include_images=True)
    assert read.output[1].image.data == b"film"
    assert store.purge(datetime.now(UTC) + timedelta(days=31)).pictures == 2
    store.close()


async def test_a_locked_database_is_unavailable_and_its_words_stay_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("services.interactions.database._BUSY_S", 0.05)
    settings = settings_in(tmp_path)
    store = InteractionStore.open(settings)
    other = sqlite3.connect(settings.data_dir / "medmax.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.DEBUG), pytest.raises(Unavailable) as failure:
        await store.save(interaction("SECRET ANSWER"))
    other.rollback()
    other.close()
    assert failure.value.retry_after_s
    assert "INSERT" not in str(failure.value)
    assert "SECRET" not in caplog.text
    await store.save(interaction())
    store.close()


async def test_a_fault_of_the_database_gives_a_reference_and_no_patient_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = InteractionStore.open(settings_in(tmp_path))
    unstorable = interaction("SECRET ANSWER")
    with store.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER t BEFORE INSERT ON interactions BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    with pytest.raises(InternalError, match="reference") as failure:
        await store.save(unstorable)
    assert failure.value.message.split()[-1] in caplog.text
    assert "SECRET" not in caplog.text + str(failure.value)
    store.close()


async def test_a_missing_or_damaged_picture_is_reported_not_returned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_in(tmp_path)
    store = InteractionStore.open(settings)
    saved = interaction(pictures=(b"film",))
    await store.save(saved)
    sha256 = (await store.get(saved.id, "radiology")).output[1].image.sha256
    path = settings.data_dir / "pictures" / sha256[:2] / sha256
    path.write_bytes(b"other")
    with pytest.raises(InternalError):
        await store.get(saved.id, "radiology", include_images=True)
    assert "damaged" in caplog.text
    path.unlink()
    with pytest.raises(InternalError):
        await store.get(saved.id, "radiology", include_images=True)
    assert "missing" in caplog.text
    store.close()


async def test_health_fails_when_the_database_is_gone(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    store = InteractionStore.open(settings)
    store.engine.dispose()
    database = settings.data_dir / "medmax.sqlite3"
    database.unlink()
    database.mkdir()
    with pytest.raises(Unavailable):
        await store.check_health()
    store.close()


def test_purge_removes_half_written_files_once_they_are_old(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    store = InteractionStore.open(settings)
    left = settings.data_dir / "pictures" / ".incoming" / "0123"
    left.write_bytes(b"half a pict")
    assert store.purge().unfinished_files == 0
    old = (datetime.now(UTC) - timedelta(days=1)).timestamp()
    os.utime(left, (old, old))
    assert store.purge().unfinished_files == 1
    assert not left.exists()
    store.close()


async def test_purged_text_is_gone_from_the_files(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    store = InteractionStore.open(settings)
    await store.save(interaction("THE PATIENT IS ANNA"))
    store.purge(datetime.now(UTC) + timedelta(days=31))
    for path in settings.data_dir.rglob("*.sqlite3*"):
        assert b"ANNA" not in path.read_bytes(), path
    store.close()
