"""An error of ours, carried from a worker's process to the command through a file: Ray wraps what it raises."""

from __future__ import annotations

import json
import os
from pathlib import Path

from services.errors import MedMaxError, from_wire


def write_failure(path: Path, error: MedMaxError) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps([error.code, error.message, error.field]))
    os.replace(partial, path)


def take_failure(path: Path) -> MedMaxError | None:
    """What was written, or None; the file is gone afterwards."""
    if not path.exists():
        return None
    code, message, field = json.loads(path.read_text())
    path.unlink()
    return from_wire(code, message, field, None)
