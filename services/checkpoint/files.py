"""Small files of a checkpoint directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from services.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """Raises: CheckpointError where the file is missing or holds no JSON object."""
    return _object(path, json.loads, "JSON")


def read_yaml(path: Path) -> dict[str, Any]:
    """Raises: CheckpointError where the file is missing or holds no YAML mapping."""
    return _object(path, yaml.safe_load, "YAML")


def _object(path: Path, parse: Any, kind: str) -> dict[str, Any]:
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"the checkpoint lacks {path.name}", field=path.name) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path.name} cannot be read: {reason}", field=path.name) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name} must hold one {kind} object", field=path.name)
    return value


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
