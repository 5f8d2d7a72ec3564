"""Where compiled code is kept."""

from __future__ import annotations

import atexit
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numba.core import config as numba_config

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent


def digest(folder: Path = _HERE) -> str:
    """Of all sources in `folder`."""
    sources = sorted(folder.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:16]


@contextmanager
def keeping() -> Iterator[None]:
    """Functions that are defined meanwhile keep their compiled code in `folder_for(digest())`."""
    config: Any = numba_config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder_for(digest(), before))
    try:
        yield
    finally:
        config.CACHE_DIR = before


def folder_for(name: str, wanted: str = "", beside: Path = _HERE) -> Path:
    """A folder that can be written: below `wanted` (NUMBA_CACHE_DIR), beside the sources, or the user's own cache.

    Where none of them can be, one for this process alone: never one in which somebody else could put code.
    """
    # `~` may have no meaning, for a user that the system does not know.
    places = [wanted] if wanted else [str(beside / "__pycache__"), "~/.cache/medmax"]
    for place in places:
        try:
            folder = Path(place).expanduser() / f"compiled-{name}"
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except (OSError, RuntimeError):
            continue
    folder = Path(tempfile.mkdtemp(prefix="medmax-compiled-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    log.warning("compiled code cannot be kept and every start compiles again; set NUMBA_CACHE_DIR")
    return folder
