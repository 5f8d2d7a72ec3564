"""Files that commands read and write."""

from __future__ import annotations

import json
import os
from pathlib import Path

from services.errors import InvalidInput


def replace_file(path: Path, data: bytes) -> None:
    """Write all of `data` to `path`, or leave it as it was. Raises: InvalidInput naming `-o` where that cannot be."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InvalidInput(f"cannot write {path}: {error.strerror}", field="-o") from None


def read_integers(path: Path) -> list[int]:
    """The JSON list in `path`, or the list `codes` or `ids` of an object as these commands print it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"is no JSON: {error}", field=path.name) from None
    if isinstance(value, dict):
        value = value.get("codes", value.get("ids"))
    if not isinstance(value, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in value):
        raise InvalidInput("must be a JSON list of whole numbers", field=path.name)
    return value
