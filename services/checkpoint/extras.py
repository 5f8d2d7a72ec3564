"""What the published layouts have no place for, kept in `provenance.json` of converted checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.checkpoint.config import GenerationDefaults
from services.checkpoint.files import read_json

KEY = "not_in_layout"


def extras(path: Path) -> tuple[dict[str, Any], GenerationDefaults, int | None]:
    """(provenance, sampling defaults, context) of the directory `path`; the reference's where there is none."""
    if not (path / "provenance.json").is_file():
        return {}, GenerationDefaults(), None
    provenance = read_json(path / "provenance.json")
    kept = provenance.get(KEY) or {}
    context = kept.get("max_position_embeddings")
    generation = GenerationDefaults.from_json(kept.get("generation_config") or {})
    return provenance, generation, context if isinstance(context, int) else None


def keep(generation: GenerationDefaults, context: int) -> dict[str, Any]:
    """The entry of `provenance.json` that `extras` reads."""
    return {KEY: {"generation_config": generation.to_json(), "max_position_embeddings": context}}
