"""Makes a back-up while everything goes on."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from annotation.backup import database
from annotation.backup.archive import Archive
from annotation.backup.manifest import File, Manifest
from annotation.loop.faults import point
from annotation.loop.secret import FILE as SECRET
from services.config import Settings
from services.errors import InternalError
from services.interactions.database import guarded
from services.interactions.pictures import PictureStore

_READ = 1 << 20


@dataclass(frozen=True)
class Created:
    """
    Attributes:
        tables: PostgreSQL's; 0 for SQLite.
        pictures: that rows need; `new_pictures` of them were in no back-up before.
        missing: digests of pictures that rows need and that are missing or damaged in the object store.
        outside: versions whose folders are not below the data folder, or not there: they are not in the back-up.
        pruned: back-ups deleted.
    """

    name: str
    tables: int
    pictures: int
    new_pictures: int
    files: int
    bytes: int
    missing: tuple[str, ...]
    outside: tuple[str, ...]
    pruned: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def create(settings: Settings, address: str, keep_days: int | None = None) -> Created:
    """Adds a back-up of what `settings` name to the archive at `address`.

    Args:
        keep_days: delete back-ups older than this, once the new one is there; None = delete none.

    Raises:
        ConfigurationError: an address is wrong, or there is no database yet.
        Unavailable: database, object store or archive are out of reach, or another back-up is being written.
    """
    archive = Archive.open(address, make=True)
    stores = {"": PictureStore.open(settings), "review": PictureStore.open(settings, prefix="review")}
    data_dir = settings.data_dir.absolute()
    engine = database.opened(settings)
    try:
        with archive.locked(), tempfile.TemporaryDirectory(prefix="medmax-backup-") as work:
            # What is purged between here and the moment below is in no row then; what is saved later is not purged yet.
            with guarded(), engine.connect() as connection:
                needed = database.pictures(connection)
            new = len(_copy(needed, stores, archive)[0])
            point("backup.pictures")
            with database.moment(engine, Path(work)) as connection:
                made_at = datetime.now(UTC)
                needed = database.pictures(connection)
                revisions, rows = database.revisions(connection), database.dump(connection, archive)
                folders = database.version_paths(connection)
            point("backup.rows")
            more, missing = _copy(needed, stores, archive)
            files, outside = _files(folders, data_dir, archive)
            manifest = Manifest(
                made_at=made_at,
                program=version("medmax-serve"),
                revisions=revisions,
                pictures={prefix: tuple(sorted(digests)) for prefix, digests in needed.items()},
                missing=tuple(sorted(missing)),
                data_dir=str(data_dir),
                files=files,
                outside=outside,
                **rows,
            )
            point("backup.ready")
            name = archive.add(manifest)
            pruned = archive.prune(made_at - timedelta(days=keep_days))[0] if keep_days is not None else 0
    finally:
        engine.dispose()
    contents = [each.content for each in manifest.tables] + [each.content for each in files]
    if manifest.sqlite is not None:
        contents.append(manifest.sqlite)
    return Created(
        name=name,
        tables=len(manifest.tables),
        pictures=sum(len(digests) for digests in manifest.pictures.values()),
        new_pictures=new + len(more),
        files=len(files),
        bytes=sum(each.bytes for each in contents),
        missing=manifest.missing,
        outside=outside,
        pruned=pruned,
    )


def _copy(
    needed: Mapping[str, set[str]], stores: Mapping[str, PictureStore], archive: Archive
) -> tuple[set[str], set[str]]:
    """Pictures that the archive lacks; digests of those copied, and of those missing or damaged."""
    copied, missing = set(), set()
    for prefix, digests in needed.items():
        for sha256 in sorted(digests):
            if archive.blobs.has(sha256):
                continue
            try:
                archive.keep(stores[prefix].read(sha256))
                copied.add(sha256)
                point("backup.picture")
            except InternalError:
                missing.add(sha256)
    return copied, missing


def _files(
    folders: Mapping[str, Path], data_dir: Path, archive: Archive
) -> tuple[tuple[File, ...], tuple[str, ...]]:
    """The installation's secret and the folders of versions; ids of versions that are elsewhere."""
    paths, outside = [data_dir / SECRET], []
    for version_id, folder in folders.items():
        folder = folder.absolute()
        if folder.is_relative_to(data_dir) and folder.is_dir():
            paths += sorted(folder.rglob("*"))
        else:
            outside.append(version_id)
    files = {}
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                content = archive.store(iter(lambda file=file: file.read(_READ), b""))  # type: ignore[misc]
            relative = path.relative_to(data_dir).as_posix()
            files[relative] = File(path=relative, content=content)
    return tuple(files[path] for path in sorted(files)), tuple(outside)
