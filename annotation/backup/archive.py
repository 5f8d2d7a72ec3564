"""Where back-ups are kept: blobs by their SHA-256, shared by all back-ups, and one small file for each back-up.

    blobs/ab/abcd…            pieces of tables and files, pictures, manifests
    backups/TIME-SHA256       a back-up: its manifest's digest is in its name, so that no damage goes unseen

The file in `backups` is written last. Before it is there, there is no back-up, only blobs that the next one uses again.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotation.backup.manifest import Content, Manifest
from services.errors import InternalError, InvalidInput, NotFound, Unavailable
from services.interactions.database import private_folder
from services.interactions.pictures import PictureStore, digest
from services.stores import open_store

PIECE = 16 << 20  # bytes; what is held in memory of a file
LATEST = "latest"
FIELD = "archive"
_TIME = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"(\d{8}T\d{6}Z)-([0-9a-f]{64})")


@dataclass
class Writer:
    """Takes bytes in any portions and keeps them in pieces."""

    archive: Archive
    written: int = 0
    blobs: list[str] = field(default_factory=list)
    waiting: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> int:
        self.waiting += data
        while len(self.waiting) >= PIECE:
            self._keep(bytes(self.waiting[:PIECE]))
            del self.waiting[:PIECE]
        return len(data)

    def finish(self) -> Content:
        if self.waiting:
            self._keep(bytes(self.waiting))
        return Content(bytes=self.written, blobs=tuple(self.blobs))

    def _keep(self, piece: bytes) -> None:
        self.blobs.append(self.archive.keep(piece))
        self.written += len(piece)


class Archive:
    """Methods raise `Unavailable` where the archive is out of reach."""

    def __init__(self, filesystem: Any, root: str, blobs: PictureStore) -> None:
        self._fs, self._root, self.blobs = filesystem, root.rstrip("/"), blobs
        self._local = Path(self._root) if "file" in _protocols(filesystem) else None

    @classmethod
    def open(cls, address: str, *, make: bool = False) -> Archive:
        """A folder, or any address that fsspec opens.

        Args:
            make: a folder that is not there.

        Raises:
            ConfigurationError: no such kind of address, or the folder cannot be made.
            NotFound: no such folder.
        """
        if not address:
            raise InvalidInput("must not be empty", field=FIELD)
        filesystem, root = open_store(address, FIELD)
        if not make and "file" in _protocols(filesystem) and not Path(root).is_dir():
            raise NotFound("no such folder", field=FIELD)
        return cls(filesystem, root, PictureStore.at(address, FIELD, "blobs"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time in a folder; a killed one leaves no lock. Elsewhere whoever starts them sees to it.

        Raises:
            Unavailable: another one is at it.
        """
        if self._local is None:
            yield
            return
        descriptor = os.open(self._local / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Unavailable("another back-up is being written there", field=FIELD) from None
        finally:
            os.close(descriptor)

    def keep(self, data: bytes) -> str:
        """Its digest; written once, however often it is kept."""
        name = digest(data)
        self.blobs.write(name, data)
        return name

    def store(self, pieces: Iterable[bytes]) -> Content:
        writer = Writer(self)
        for piece in pieces:
            writer.write(piece)
        return writer.finish()

    def read(self, content: Content) -> Iterator[bytes]:
        """Its pieces. Raises: InternalError where one is missing or damaged."""
        for blob in content.blobs:
            yield self.blobs.read(blob)

    def damaged(self, manifest: Manifest) -> list[str]:
        """What of a back-up is missing or damaged, by name; every byte is read."""
        bad: dict[str, bool] = {}

        def is_bad(blob: str) -> bool:
            if blob not in bad:
                try:
                    self.blobs.read(blob)
                    bad[blob] = False
                except InternalError:
                    bad[blob] = True
            return bad[blob]

        found = [
            f"{name} (blob {blob})" for name, blobs in manifest.parts() for blob in blobs if is_bad(blob)
        ]
        pictures = sorted({each for digests in manifest.pictures.values() for each in digests})
        gone = set(manifest.missing)
        return found + [f"picture {each}" for each in pictures if each not in gone and is_bad(each)]

    def names(self) -> list[str]:
        """Of all back-ups, oldest first."""
        try:
            found = [path.rpartition("/")[2] for path in self._fs.ls(f"{self._root}/backups", detail=False)]
        except FileNotFoundError:
            return []
        except Exception as error:  # every fsspec back-end has its own
            raise _unreachable(error) from None
        return sorted(name for name in found if _NAME.fullmatch(name))

    def add(self, manifest: Manifest) -> str:
        """Make the back-up be there; its name."""
        name = f"{manifest.made_at.astimezone(UTC).strftime(_TIME)}-{self.keep(manifest.model_dump_json().encode())}"
        try:
            if self._local is None:
                self._fs.pipe_file(f"{self._root}/backups/{name}", b"")
            else:
                folder = private_folder(self._local / "backups")
                os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY, 0o600))
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except Exception as error:  # every fsspec back-end has its own
            raise _unreachable(error) from None
        return name

    def find(self, wanted: str = LATEST) -> str:
        """The name that begins with `wanted`. Raises: NotFound, InvalidInput where several do."""
        names = self.names()
        fitting = names[-1:] if wanted == LATEST else [each for each in names if each.startswith(wanted)]
        if not fitting:
            raise NotFound("no such back-up", field="backup")
        if len(fitting) > 1:
            raise InvalidInput("several back-ups begin like this", field="backup")
        return fitting[0]

    def load(self, name: str) -> Manifest:
        """Raises: InvalidInput where its manifest is missing, damaged or not of this version."""
        try:
            return Manifest.parse(self.blobs.read(name.partition("-")[2]))
        except InternalError:
            raise InvalidInput(f"the manifest of {name} is missing or damaged", field=FIELD) from None

    def prune(self, before: datetime) -> tuple[int, int]:
        """Delete back-ups made before, the newest never, and blobs that none needs; how many of each.

        Raises:
            InvalidInput: a manifest that stays cannot be read, so that nobody knows what it needs; nothing is deleted.
        """
        names = self.names()
        old = [name for name in names[:-1] if _made(name) < before]
        needed: set[str] = set()
        for name in names:
            if name not in old:
                needed |= self.load(name).blobs() | {name.partition("-")[2]}
        try:
            for name in old:
                self._fs.rm_file(f"{self._root}/backups/{name}")
            kept = self._fs.find(f"{self._root}/blobs")
        except Exception as error:  # every fsspec back-end has its own
            raise _unreachable(error) from None
        unneeded = {path.rpartition("/")[2] for path in kept} - needed
        for blob in unneeded:
            if re.fullmatch(r"[0-9a-f]{64}", blob):
                self.blobs.delete(blob)
        self.blobs.sweep(datetime.now(UTC))
        return len(old), len(unneeded)


def _made(name: str) -> datetime:
    return datetime.strptime(name.partition("-")[0], _TIME).replace(tzinfo=UTC)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _unreachable(error: Exception) -> Unavailable:
    return Unavailable(f"the archive is out of reach: {type(error).__name__}", field=FIELD, retry_after_s=5)
