"""Brings a back-up back, into an installation that holds nothing yet."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from annotation.backup import database
from annotation.backup.archive import LATEST, PIECE, Archive
from annotation.backup.manifest import File
from annotation.loop.faults import point
from services.config import Settings
from services.errors import ConfigurationError, InvalidInput
from services.interactions.database import database_url, private_folder
from services.interactions.pictures import PictureStore

SHOWN = 20


@dataclass(frozen=True)
class Restored:
    """As `Created`; `missing` and `outside` were so when the back-up was made."""

    name: str
    pictures: int
    files: int
    missing: tuple[str, ...]
    outside: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def restore(settings: Settings, address: str, wanted: str = LATEST) -> Restored:
    """Pictures, then files, then the database, which appears whole or not at all. Again after a kill, it goes on.

    Raises:
        ConfigurationError: the database holds rows, or a file is there with other contents; nothing was written.
        InvalidInput: a piece is missing or damaged, which is named; nothing was written.
        NotFound: no such back-up.
        Unavailable: database, object store or archive are out of reach.
    """
    archive = Archive.open(address)
    name = archive.find(wanted)
    manifest = archive.load(name)
    data_dir = settings.data_dir.absolute()
    url = database_url(settings)
    database.check_empty(url)
    for file in manifest.files:
        _check_file(data_dir / file.path, file)
    if damaged := archive.damaged(manifest):
        more = f" and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
        raise InvalidInput(f"missing or damaged: {', '.join(damaged[:SHOWN])}{more}", field="archive")
    gone = set(manifest.missing)
    for prefix, digests in manifest.pictures.items():
        store = PictureStore.open(settings, prefix=prefix)
        for sha256 in digests:
            if sha256 not in gone:
                store.write(sha256, archive.blobs.read(sha256))
                point("restore.picture")
    for file in manifest.files:
        _write(data_dir / file.path, file, archive)
        point("restore.file")
    database.restore(url, manifest, archive, data_dir)
    pictures = sum(len(set(digests) - gone) for digests in manifest.pictures.values())
    return Restored(name, pictures, len(manifest.files), manifest.missing, manifest.outside)


def _check_file(path: Path, file: File) -> None:
    if not path.exists():
        return
    if not path.is_file() or not _same(path, file):
        raise ConfigurationError(
            f"{file.path} is there already with other contents; move it away first", field="MEDMAX_DATA_DIR"
        )


def _same(path: Path, file: File) -> bool:
    with path.open("rb") as there:
        for blob in file.content.blobs:
            if hashlib.sha256(there.read(PIECE)).hexdigest() != blob:
                return False
        return not there.read(1)


def _write(path: Path, file: File, archive: Archive) -> None:
    if path.exists():
        return  # the same, as was checked
    private_folder(path.parent)
    part = path.with_name(f".{secrets.token_hex(8)}.restoring")
    with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
        for piece in archive.read(file.content):
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)
