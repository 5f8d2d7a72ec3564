"""Connections to SQLite or PostgreSQL, and the way of their schema to the newest version."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.config import Settings
from services.errors import ConfigurationError, MedMaxError, Unavailable, internal_error

log = logging.getLogger(__name__)

T = TypeVar("T")

THREADS = 4
_TIMESTAMPTZ = 1184  # PostgreSQL's number of the type
_BUSY_S = 30.0
_NETWORK_S = 15.0
# Any number, the same in every process: whoever holds it may migrate.
_MIGRATION_LOCK = 0x6D65646D6178
_FIELD = "MEDMAX_DATABASE_URL"
_UNREACHABLE = "the interaction store's database is out of reach or busy"
# PostgreSQL's serialization_failure and deadlock_detected: nothing was done, and trying again is safe.
_REPEAT = frozenset({"40001", "40P01"})


class GivenUp(Unavailable):
    """The database ended a deadlock by undoing this transaction: nothing was done, and doing it again is safe."""


def private_folder(path: Path) -> Path:
    """Make `path` and what is missing above it, readable by its owner alone; a folder that is there keeps its mode."""
    if not path.exists():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def database_url(settings: Settings) -> URL:
    """The address in force.

    Raises:
        ConfigurationError: neither SQLite in a file nor PostgreSQL.
    """
    if not settings.database_url:
        return URL.create("sqlite", database=str(settings.data_dir.absolute() / "medmax.sqlite3"))
    try:
        url = make_url(settings.database_url)
    except ArgumentError:
        raise ConfigurationError("is no database address", field=_FIELD) from None
    backend = url.drivername.partition("+")[0]
    if backend in {"postgresql", "postgres"}:
        return url.set(drivername="postgresql+pg8000")
    if backend == "sqlite" and url.database and url.database != ":memory:":
        return url.set(drivername="sqlite")
    raise ConfigurationError("must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME", field=_FIELD)


def connect(url: URL) -> Engine:
    """An engine whose errors and logs never hold parameters, for patients' words are among them."""
    if url.get_backend_name() != "sqlite":
        return _connect_postgres(url)
    path = Path(str(url.database))
    private_folder(path.parent)
    # SQLite gives its journal the mode of the database, so the database must be private from the start.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = create_engine(
        url, hide_parameters=True, pool_size=THREADS, max_overflow=0, connect_args={"timeout": _BUSY_S}
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # Transactions are begun below, not by the driver, which would leave DDL and reads outside of them.
        connection.isolation_level = None
        for pragma in (
            "journal_mode = WAL",
            # With WAL, only FULL makes an acknowledged interaction outlive a power cut.
            "synchronous = FULL",
            "foreign_keys = ON",
            "secure_delete = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes later would fail at once, without waiting, when another
        # one wrote in between; so writers take the lock at the start.
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _connect_postgres(url: URL) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=THREADS,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=_NETWORK_S,
        connect_args={"timeout": _NETWORK_S},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        # The driver's own reader of times (strptime) takes longer than the rest of a row.
        connection.register_in_adapter(_TIMESTAMPTZ, datetime.fromisoformat)

    return engine


@contextmanager
def transaction(engine: Engine, *, write: bool = True) -> Iterator[Connection]:
    """A connection in a transaction: committed at the end, rolled back on an error.

    Raises:
        Unavailable: the database is out of reach or stays locked.
        InternalError: any other fault of the database; the log has its kind under the reference.
    """
    with guarded(), engine.connect() as connection:
        options = connection.execution_options(write=write)
        with options.begin():
            yield options


def repeated(do: Callable[[], T], times: int = 5) -> T:
    """`do()`, which is one transaction, again where the database undid it to end a deadlock.

    Raises:
        Unavailable: as `transaction`, or every time.
    """
    for _ in range(times - 1):
        with contextlib.suppress(GivenUp):
            return do()
    return do()


@contextmanager
def guarded() -> Iterator[None]:
    """Turns the database's errors into ours, without its words."""
    try:
        yield
    except MedMaxError:
        raise
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        if lost or isinstance(error, OperationalError | InterfaceError | PoolTimeout):
            log.error("database out of reach: %s", type(cause).__name__)
            raise _unreachable() from None
        if _sqlstate(cause) in _REPEAT:
            log.warning("transaction given up: %s", _sqlstate(cause))
            raise GivenUp(_UNREACHABLE, retry_after_s=5) from None
        reference = internal_error()
        log.error("%s: database fault %s: %s", reference.message, type(cause).__name__, _sqlstate(cause))
        raise reference from None
    except (OSError, EOFError) as error:
        log.error("database out of reach: %s", type(error).__name__)
        raise _unreachable() from None


def _unreachable() -> Unavailable:
    return Unavailable(_UNREACHABLE, retry_after_s=5)


def _sqlstate(cause: BaseException) -> str:
    first = cause.args[0] if cause.args else ""
    if isinstance(first, dict):
        return str(first.get("C", ""))
    return getattr(cause, "sqlite_errorname", "")


@dataclass(frozen=True)
class History:
    """The versions of one package's tables; several histories share a database.

    Attributes:
        scripts: where Alembic's versions lie, as `package:folder`.
        table: where the database keeps the version in force.
    """

    scripts: str
    table: str

    def config(self) -> Config:
        """Alembic's configuration."""
        config = Config()
        config.set_main_option("script_location", self.scripts)
        config.attributes["version_table"] = self.table
        return config


INTERACTIONS = History("services.interactions:migrations", "alembic_version")


def newest_revision(history: History = INTERACTIONS) -> str:
    """The schema version that this program writes."""
    return str(ScriptDirectory.from_config(history.config()).get_current_head())


def current_revision(engine: Engine, history: History = INTERACTIONS) -> str | None:
    """The database's schema version; None where there is no schema yet."""
    with transaction(engine, write=False) as connection:
        options = {"version_table": history.table}
        return MigrationContext.configure(connection, opts=options).get_current_revision()


def migrate(engine: Engine, history: History = INTERACTIONS, revision: str = "head") -> None:
    """Bring the schema to the newest version. Safe when several processes do it at once: one does, the rest wait.

    Raises:
        ConfigurationError: the database was written by a newer program.
        Unavailable: it is out of reach.
    """
    with _file_lock(engine.url), transaction(engine) as connection:
        upgrade(connection, history, revision)


def upgrade(connection: Connection, history: History = INTERACTIONS, revision: str = "head") -> None:
    """As `migrate`, within a transaction that goes on.

    Raises:
        ConfigurationError: as `migrate`, or there is no such revision.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    config = history.config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError:
        raise ConfigurationError(
            "the database was written by a newer version of this program; upgrade it", field=_FIELD
        ) from None


@contextmanager
def _file_lock(url: URL) -> Iterator[None]:
    # The first switch to write-ahead logging is no transaction, so SQLite's own lock does not cover it.
    if url.get_backend_name() != "sqlite":
        yield
        return
    with guarded():
        descriptor = os.open(f"{url.database}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
