"""A real PostgreSQL and a real Label Studio for the tests of this folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, text

from loadtests.review_database import own_database
from tests.support.labelstudio import labelstudio_server

__all__ = ["labelstudio_server"]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a server of our own, on a Unix socket, without the name of the database."""
    with own_database() as address:
        yield address.replace("/postgres?", "/{database}?")


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
