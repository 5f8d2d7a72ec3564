"""The database's part of a back-up: one moment of all tables, out and in again.

PostgreSQL gives and takes its own COPY format; the schema comes from the migrations. SQLite gives its file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, delete, exists, inspect, select, text, update
from sqlalchemy import Table as SqlTable
from sqlalchemy.exc import DatabaseError, InterfaceError

from annotation.backup.archive import Archive, Writer
from annotation.backup.manifest import Content, Manifest, Table
from annotation.loop.faults import point
from annotation.store import REVIEW
from annotation.store.schema import audit_head, item_pictures, versions
from annotation.store.schema import metadata as review_metadata
from services.config import Settings
from services.errors import ConfigurationError, InvalidInput
from services.interactions.database import (
    INTERACTIONS,
    connect,
    database_url,
    guarded,
    private_folder,
    upgrade,
)
from services.interactions.schema import interaction_pictures
from services.interactions.schema import metadata as interactions_metadata

HISTORIES = (INTERACTIONS, REVIEW)
TABLES = (*interactions_metadata.sorted_tables, *review_metadata.sorted_tables)
FIELD = "MEDMAX_DATABASE_URL"


@contextmanager
def moment(engine: Engine, work: Path) -> Iterator[Connection]:
    """A connection on which nothing changes any more, while others go on writing.

    Args:
        work: folder for SQLite's copy.

    Raises:
        Unavailable: the database is out of reach.
    """
    with guarded():
        if engine.dialect.name == "sqlite":
            copy = create_engine(
                URL.create("sqlite", database=str(_copied(Path(str(engine.url.database)), work)))
            )
            try:
                with copy.connect() as connection:
                    yield connection
            finally:
                copy.dispose()
            return
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with engine.connect().execution_options(**options) as connection:
            yield connection


def _copied(path: Path, work: Path) -> Path:
    copy = work / "medmax.sqlite3"
    with closing(sqlite3.connect(path, timeout=30)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        # A file of its own, without a log beside it.
        target.execute("PRAGMA journal_mode = DELETE")
    return copy


def opened(settings: Settings) -> Engine:
    """Raises: ConfigurationError where the address is wrong, or there is no database yet."""
    url = database_url(settings)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        raise ConfigurationError("there is no database to back up", field=FIELD)
    with guarded():
        return connect(url)


def present(connection: Connection) -> list[SqlTable]:
    """Our tables that the database has, in an order in which they can be filled."""
    there = set(inspect(connection).get_table_names())
    return [table for table in TABLES if table.name in there]


def revisions(connection: Connection) -> dict[str, str]:
    """Of the schema, by Alembic's tables."""
    there = set(inspect(connection).get_table_names())
    found = {
        each.table: connection.scalar(text(f"SELECT version_num FROM {each.table}"))
        for each in HISTORIES
        if each.table in there
    }
    return {table: revision for table, revision in found.items() if revision}


def pictures(connection: Connection) -> dict[str, set[str]]:
    """Digests that rows need, by the part of the object store they are in."""
    there = present(connection)
    return {
        prefix: set(connection.scalars(select(links.c.sha256).distinct())) if links in there else set()
        for prefix, links in (("", interaction_pictures), ("review", item_pictures))
    }


def version_paths(connection: Connection) -> dict[str, Path]:
    """Folders of data-set and model versions by their ids."""
    if versions not in present(connection):
        return {}
    rows = connection.execute(select(versions.c.id, versions.c.path).order_by(versions.c.id))
    return {row.id: Path(row.path) for row in rows}


def dump(connection: Connection, archive: Archive) -> dict[str, Any]:
    """The manifest's `tables` or `sqlite`."""
    if connection.dialect.name == "sqlite":
        with open(str(connection.engine.url.database), "rb") as file:
            return {"sqlite": archive.store(iter(lambda: file.read(1 << 20), b""))}
    return {"tables": tuple(_copy_out(connection, archive, table.name) for table in present(connection))}


def _copy_out(connection: Connection, archive: Archive, name: str) -> Table:
    # Those that the database has, which may be of an older program.
    columns = tuple(column["name"] for column in inspect(connection).get_columns(name))
    writer = Writer(archive)
    _copy(connection, f"COPY {name} ({_quoted(columns)}) TO STDOUT", writer)
    return Table(name=name, columns=columns, content=writer.finish())


def check_empty(url: URL) -> None:
    """Raises: ConfigurationError where the database holds anything that a restore would have to replace."""
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        if any(path.with_name(path.name + suffix).exists() for suffix in ("", "-wal", "-journal")):
            raise ConfigurationError("the SQLite database is there already; move it away first", field=FIELD)
        return
    with guarded():
        engine = connect(url)
    try:
        with guarded(), engine.connect() as connection:
            _check_rows(connection)
    finally:
        engine.dispose()


def _check_rows(connection: Connection) -> None:
    for table in present(connection):
        if table is not audit_head and connection.scalar(select(exists().select_from(table))):
            raise ConfigurationError(
                f"the database holds rows already (table {table.name}); restore into an empty one",
                field=FIELD,
            )


def restore(url: URL, manifest: Manifest, archive: Archive, data_dir: Path) -> None:
    """All rows, or none: one transaction, or one renaming of a file.

    Raises:
        ConfigurationError: the database is not empty, or of another kind than the back-up's.
        InternalError: a piece is missing or damaged.
    """
    if (url.get_backend_name() == "sqlite") != (manifest.sqlite is not None):
        kind = "PostgreSQL" if manifest.sqlite is None else "SQLite"
        raise ConfigurationError(f"the back-up is of {kind}, and can be restored into no other", field=FIELD)
    if manifest.sqlite is not None:
        _restore_sqlite(Path(str(url.database)), manifest, manifest.sqlite, archive, data_dir)
        return
    engine = connect(url)
    try:
        with guarded(), engine.begin() as connection:
            _restore_postgres(connection, manifest, archive)
            _move_versions(connection, manifest, data_dir)
            for history in HISTORIES:
                if history.table in manifest.revisions:
                    upgrade(connection, history)
            point("restore.rows")
    finally:
        engine.dispose()


def _restore_sqlite(
    path: Path, manifest: Manifest, content: Content, archive: Archive, data_dir: Path
) -> None:
    private_folder(path.parent)
    part = path.with_name(f"{path.name}.restoring")
    for suffix in ("", "-wal", "-shm", "-journal"):
        part.with_name(part.name + suffix).unlink(missing_ok=True)
    with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        for piece in archive.read(content):
            file.write(piece)
    engine = create_engine(URL.create("sqlite", database=str(part)), hide_parameters=True)
    try:
        with guarded(), engine.begin() as connection:
            if connection.scalar(text("PRAGMA integrity_check")) != "ok":
                raise InvalidInput("the SQLite database in the back-up is damaged", field="archive")
            _move_versions(connection, manifest, data_dir)
    finally:
        engine.dispose()
    descriptor = os.open(part, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    point("restore.rows")
    try:
        os.link(part, path)  # unlike a renaming, it replaces nothing
    except FileExistsError:
        raise ConfigurationError(
            "the SQLite database is there already; move it away first", field=FIELD
        ) from None
    part.unlink()
    descriptor = os.open(path.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _restore_postgres(connection: Connection, manifest: Manifest, archive: Archive) -> None:
    known = {table.name: table for table in TABLES}
    if unknown := [each.name for each in manifest.tables if each.name not in known]:
        raise InvalidInput(f"table {unknown[0]} of the back-up is unknown to this version", field="archive")
    there = present(connection)
    for table in there:
        connection.execute(text(f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE"))
    _check_rows(connection)
    # Empty, so nothing is lost: the schema is made as it was when the back-up was.
    for table in reversed(there):
        table.drop(connection)
    for history in HISTORIES:
        connection.execute(text(f"DROP TABLE IF EXISTS {history.table}"))
        if revision := manifest.revisions.get(history.table):
            upgrade(connection, history, revision)
    if audit_head in present(connection):
        connection.execute(delete(audit_head))  # its one row is in the back-up
    for each in manifest.tables:
        _copy(
            connection, f"COPY {each.name} ({_quoted(each.columns)}) FROM STDIN", archive.read(each.content)
        )
        _advance(connection, each.name)
        point("restore.table")


def _advance(connection: Connection, table: str) -> None:
    """Numbers that the database gives out go on after those that rows have."""
    for column in inspect(connection).get_columns(table):
        sequence = connection.scalar(
            text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table, "column": column["name"]}
        )
        if sequence:
            newest = f'SELECT max("{column["name"]}") FROM {table}'
            connection.execute(
                text(f"SELECT setval(:name, coalesce(({newest}), 1), ({newest}) IS NOT NULL)"),
                {"name": sequence},
            )


def _move_versions(connection: Connection, manifest: Manifest, data_dir: Path) -> None:
    """Folders of versions lie below the data folder of now."""
    before = Path(manifest.data_dir)
    for version, path in version_paths(connection).items():
        if path.is_relative_to(before) and before != data_dir:
            moved = data_dir / path.relative_to(before)
            connection.execute(update(versions).where(versions.c.id == version).values(path=str(moved)))


def _copy(connection: Connection, statement: str, stream: Any) -> None:
    driver: Any = connection.connection.driver_connection
    try:
        with closing(driver.cursor()) as cursor:
            cursor.execute(statement, stream=stream)
    except driver.InterfaceError as error:
        raise InterfaceError(statement, None, error) from None
    except driver.DatabaseError as error:
        raise DatabaseError(statement, None, error) from None
    except BaseException:
        # The server waits for the rest of the rows: only the connection's end makes it give up.
        connection.invalidate()
        raise


def _quoted(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{column}"' for column in columns)
