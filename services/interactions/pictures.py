"""Pictures by the SHA-256 of their bytes, in a folder or any store that fsspec reaches."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from services.config import Settings
from services.errors import ConfigurationError, InternalError, Unavailable, internal_error
from services.interactions.database import private_folder
from services.stores import open_store

log = logging.getLogger(__name__)


def digest(data: bytes) -> str:
    """SHA-256 of `data`, hex."""
    return hashlib.sha256(data).hexdigest()


class PictureStore:
    """Content-addressed: writing the same bytes twice is writing them once, and a file is whole or not there.

    Methods raise `Unavailable` where the store is out of reach.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._local = Path(root) if isinstance(filesystem, LocalFileSystem) else None

    @classmethod
    def open(cls, settings: Settings, prefix: str = "") -> PictureStore:
        """The store that `settings.object_store` names, or a part of it (`prefix`), made if it is not there.

        Raises:
            ConfigurationError: an address that fsspec does not know or lacks the package for, or a folder that
                cannot be made.
        """
        address = settings.object_store or str(settings.data_dir.absolute() / "pictures")
        return cls.at(address, "MEDMAX_OBJECT_STORE" if settings.object_store else "MEDMAX_DATA_DIR", prefix)

    @classmethod
    def at(cls, address: str, field: str, prefix: str = "") -> PictureStore:
        """As `open`, by an address; `field` is what an error names."""
        filesystem, root = open_store(address, field)
        store = cls(filesystem, f"{root.rstrip('/')}/{prefix}" if prefix else root)
        if store._local is not None:
            try:
                private_folder(store._local)
                private_folder(store._temporary)
            except OSError as error:
                raise ConfigurationError(
                    f"the folder for pictures cannot be made: {error.strerror}", field=field
                ) from None
        return store

    @property
    def _temporary(self) -> Path:
        assert self._local is not None
        return self._local / ".incoming"

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def write(self, sha256: str, data: bytes) -> None:
        """Keep `data`, whose digest is `sha256`; on disk when this returns."""
        try:
            if self._local is not None:
                self._write_local(self._local / sha256[:2] / sha256, data)
            elif not self._fs.exists(self._path(sha256)):
                self._fs.pipe_file(self._path(sha256), data)
        except Exception as error:  # every fsspec back-end has its own
            raise _unreachable(error) from None

    def _write_local(self, path: Path, data: bytes) -> None:
        if path.exists():
            return
        private_folder(path.parent)
        temporary = self._temporary / secrets.token_hex(16)
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
        for folder in (path.parent, path.parent.parent):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def has(self, sha256: str) -> bool:
        """Whether there is such a picture; its bytes are not looked at."""
        try:
            return bool(self._fs.exists(self._path(sha256)))
        except Exception as error:  # every fsspec back-end has its own
            raise _unreachable(error) from None

    def read(self, sha256: str) -> bytes:
        """The bytes whose digest is `sha256`.

        Raises:
            InternalError: they are missing or damaged; the log says which under the reference.
        """
        try:
            data = bytes(self._fs.cat_file(self._path(sha256)))
        except FileNotFoundError:
            raise self._broken(sha256, "missing") from None
        except Exception as error:  # every fsspec back-end has its own
            raise _unreachable(error) from None
        if digest(data) != sha256:
            raise self._broken(sha256, "damaged")
        return data

    @staticmethod
    def _broken(sha256: str, how: str) -> InternalError:
        reference = internal_error()
        log.error("%s: picture %s is %s in the object store", reference.message, sha256, how)
        return reference

    def delete(self, sha256: str) -> None:
        """Remove a picture; one that is not there is no error."""
        try:
            self._fs.rm_file(self._path(sha256))
        except FileNotFoundError:
            return
        except Exception as error:  # every fsspec back-end has its own
            raise _unreachable(error) from None

    def sweep(self, before: datetime) -> int:
        """Remove what a killed writer left half-written up to `before`; returns how many files."""
        if self._local is None:
            return 0
        swept = 0
        for path in self._temporary.glob("*"):
            try:
                if path.stat().st_mtime <= before.timestamp():
                    path.unlink()
                    swept += 1
            except FileNotFoundError:
                continue
        return swept

    def check(self) -> None:
        """Raises: Unavailable where nothing can be written or, at a distance, the store does not answer."""
        try:
            if self._local is None:
                self._fs.exists(self._path("0" * 64))
            elif not os.access(self._temporary, os.W_OK):
                raise PermissionError("not writable")
        except Exception as error:  # every fsspec back-end has its own
            raise _unreachable(error) from None

    def probe(self) -> None:
        """Write, read and delete a small file. Raises: Unavailable, InternalError."""
        data = b"medmax doctor " + secrets.token_bytes(16)
        sha256 = digest(data)
        self.write(sha256, data)
        try:
            self.read(sha256)
        finally:
            self.delete(sha256)


def _unreachable(error: Exception) -> Unavailable:
    log.error("object store out of reach: %s", type(error).__name__)
    return Unavailable("the interaction store's pictures are out of reach", retry_after_s=5)
