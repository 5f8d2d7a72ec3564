"""Files that commands write: all of it, or the file as it was."""

from __future__ import annotations

import os
from pathlib import Path

from services.errors import InvalidInput


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`. Raises: InvalidInput naming `-o` where that cannot be."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InvalidInput(f"cannot write {path}: {error.strerror}", field="-o") from None
