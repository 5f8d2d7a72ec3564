"""Back-up and restore on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from annotation.backup.create import create
from annotation.backup.restore import restore
from services.config import Settings
from services.errors import ConfigurationError
from services.interactions import InteractionStore
from services.interactions.database import connect, current_revision, database_url, migrate, newest_revision
from tests.integration.conftest import database
from tests.unit.backup.behaviour import BackupBehaviour, check_pictures, rows, save
from tests.unit.interactions.samples import settings_in


@pytest.fixture
def settings(postgres: str, tmp_path: Path) -> Iterator[Settings]:
    with database(postgres) as address:
        yield settings_in(tmp_path / "here", database_url=address)


@pytest.fixture
def target(postgres: str, tmp_path: Path) -> Iterator[Settings]:
    with database(postgres) as address:
        yield settings_in(tmp_path / "elsewhere", database_url=address)


class TestPostgres(BackupBehaviour):
    """Everything that holds on SQLite."""


def test_gateways_that_run_already_go_on_with_what_was_restored(
    settings: Settings, target: Settings, tmp_path: Path
) -> None:
    store = InteractionStore.open(settings)
    save(store, 3)
    store.close()
    create(settings, str(tmp_path / "archive"))
    running = InteractionStore.open(target)  # which made the tables
    restore(target, str(tmp_path / "archive"))
    save(running)
    running.close()
    assert len(rows(target)["interactions"]) == 4
    check_pictures(target)


def test_a_back_up_of_an_older_program_is_brought_to_the_newest_schema(
    settings: Settings, target: Settings, tmp_path: Path
) -> None:
    engine = connect(database_url(settings))
    migrate(engine, revision="0001")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO interactions (id, created_at, expires_at, caller, model_id, model_digest, mode, reason,"
                " consent_training, total_ms, body) VALUES ('int_1', now(), now(), 'a', 'm', 'd', 't', 's', false, 1, '{}')"
            )
        )
    create(settings, str(tmp_path / "archive"))
    assert current_revision(engine) == "0001", "a back-up changes nothing"
    engine.dispose()
    restore(target, str(tmp_path / "archive"))
    engine = connect(database_url(target))
    assert current_revision(engine) == newest_revision()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id, tokens FROM interactions")).all() == [("int_1", 0)]
    engine.dispose()


def test_another_kind_of_database_is_refused(settings: Settings, tmp_path: Path) -> None:
    store = InteractionStore.open(settings)
    save(store)
    store.close()
    create(settings, str(tmp_path / "archive"))
    with pytest.raises(ConfigurationError, match="PostgreSQL"):
        restore(settings_in(tmp_path / "laptop"), str(tmp_path / "archive"))
