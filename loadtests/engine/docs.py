"""The section of docs/benchmarks.md between two markers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.engine.report import markdown
from loadtests.engine.results import Results

BEGIN, END = "<!-- engine benchmark: begin -->", "<!-- engine benchmark: end -->"


def section(results: Results, machine: dict[str, Any], versions: dict[str, str], command: str) -> str:
    """What stands between the markers."""
    facts = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items())
    software = "; ".join(f"{key} {value}" for key, value in versions.items())
    return "\n\n".join(
        [
            f"`{command}` on {datetime.now(UTC):%Y-%m-%d}. Machine: {facts}. Versions: {software}.",
            markdown(results),
        ]
    )


def rewrite(page: Path, text: str) -> None:
    """Put `text` between the markers of `page`.

    Raises:
        ValueError: the page lacks them.
    """
    old = page.read_text(encoding="utf-8")
    begin, end = old.find(BEGIN), old.find(END)
    if not 0 <= begin < end:
        raise ValueError(f"{page} lacks the markers {BEGIN} and {END}")
    page.write_text(f"{old[: begin + len(BEGIN)]}\n{text}\n{old[end:]}", encoding="utf-8")
