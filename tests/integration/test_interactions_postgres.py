"""The store of interactions on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from services.config import Settings
from services.errors import Unavailable
from services.interactions import InteractionStore
from tests.integration.conftest import database
from tests.unit.interactions.behaviour import StoreBehaviour
from tests.unit.interactions.samples import interaction, settings_in


@pytest.fixture
def settings(postgres: str, tmp_path: Path) -> Iterator[Settings]:
    with database(postgres) as address:
        yield settings_in(tmp_path, database_url=address)


class TestPostgres(StoreBehaviour):
    """Everything that holds on SQLite."""


async def test_a_connection_that_the_server_dropped_is_replaced(settings: Settings) -> None:
    store = InteractionStore.open(settings)
    first, second = interaction(), interaction()
    await store.save(first)
    with store.engine.connect() as connection:
        own = connection.scalar(text("SELECT pg_backend_pid()"))
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> :own"
            ),
            {"own": own},
        )
    await store.save(second)
    assert (await store.get(first.id, "radiology")).id == first.id
    store.close()


async def test_a_server_that_is_not_there_is_unavailable_and_its_password_stays_inside(
    tmp_path: Path,
) -> None:
    address = "postgresql://medmax:secret@127.0.0.1:1/medmax"
    with pytest.raises(Unavailable) as failure:
        InteractionStore.open(settings_in(tmp_path, database_url=address))
    assert "secret" not in str(failure.value)
