"""Where a version is built: a hidden folder that becomes the version by one rename, or nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.errors import ConfigurationError, Overloaded

BUILDING = ".building"
_LOCK = ".lock"


@contextmanager
def workspace(root: Path) -> Iterator[Path]:
    """An empty folder below `root`, removed at the end. One build at a time; what a killed one left is removed.

    Raises:
        Overloaded: another build is at work.
        ConfigurationError: `root` cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(root / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise ConfigurationError(f"cannot be written: {error.strerror}", field="root") from None
    folder = root / BUILDING
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it when its process ends
        except BlockingIOError:
            raise Overloaded("another build of this root is at work", retry_after_s=60) from None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def publish(folder: Path, target: Path) -> None:
    """Make `folder`, whose files are on disk, visible as `target`, whole."""
    for inner in (*(path for path in folder.iterdir() if path.is_dir()), folder):
        sync_folder(inner)
    os.rename(folder, target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
