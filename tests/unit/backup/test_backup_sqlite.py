"""Back-up and restore on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from annotation.backup.create import create
from annotation.backup.restore import restore
from services.config import Settings
from services.errors import ConfigurationError
from services.interactions import InteractionStore
from tests.unit.backup.behaviour import BackupBehaviour, save
from tests.unit.interactions.samples import settings_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path / "here")


@pytest.fixture
def target(tmp_path: Path) -> Settings:
    return settings_in(tmp_path / "elsewhere")


class TestSqlite(BackupBehaviour):
    """All of it."""


def test_what_waits_in_the_log_is_in_the_back_up(
    settings: Settings, target: Settings, tmp_path: Path
) -> None:
    store = InteractionStore.open(settings)
    with store.engine.connect() as holder:
        holder.execute(text("SELECT count(*) FROM interactions")).all()  # so that nothing is folded in
        save(store, 3)
        create(settings, str(tmp_path / "archive"))
    store.close()
    restore(target, str(tmp_path / "archive"))
    restored = InteractionStore.open(target)
    with restored.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM interactions")) == 3
    restored.close()


def test_without_a_database_there_is_nothing_to_back_up(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="MEDMAX_DATABASE_URL"):
        create(settings, str(tmp_path / "archive"))
    assert not (settings.data_dir / "medmax.sqlite3").exists()


def test_what_was_restored_is_its_owner_s_alone(settings: Settings, target: Settings, tmp_path: Path) -> None:
    store = InteractionStore.open(settings)
    save(store)
    store.close()
    create(settings, str(tmp_path / "archive"))
    restore(target, str(tmp_path / "archive"))
    for folder in (tmp_path / "archive", target.data_dir):
        for path in folder.rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path.name
