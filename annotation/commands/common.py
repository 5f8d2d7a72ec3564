"""What the commands of `medmax review` share."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.commands.output import document, out, printable

if TYPE_CHECKING:
    from annotation.loop.context import Loop
    from annotation.loop.result import Result

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        envvar="MEDMAX_REVIEW_CONFIG",
        help="Settings of the review, YAML. MEDMAX_REVIEW_* win over it.",
        show_default=False,
    ),
]
Why = Annotated[str, typer.Option("--why", help="Kept in the audit. Name no patient.")]


@contextmanager
def opened(config: Path | None, public_url: str = "") -> Iterator[Loop]:
    """The review loop by the settings; closed at the end."""
    from annotation.loop.context import Loop
    from annotation.loop.settings import load_review
    from services.config import load

    settings = load_review(config)
    with Loop(settings, load(), public_url=public_url or default_url(settings)) as loop:
        yield loop


def default_url(settings: Any) -> str:
    """Where `medmax review run` listens, if its port is fixed."""
    return f"http://{settings.host}:{settings.port}" if settings.port else ""


def person() -> str:
    """Who acts, for the audit: the user of this machine."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = "unknown"
    return "cli:" + (re.sub(r"[^A-Za-z0-9._-]", "-", name) or "unknown")[:48]


def report(name: str, result: Result, json: bool) -> None:
    """What one pass of a step did."""
    if json:
        document({"step": name, **result.to_json()})
        return
    out.print(f"{name}: {result.done} done, {result.left} left", markup=False)
    for reason, count in sorted(result.failed.items()):
        out.print(f"  {count} not: {printable(reason)}", markup=False)
    for key, value in result.said.items():
        if value not in (None, "", 0):
            for line in f"{key.replace('_', ' ')}: {value}".splitlines():
                out.print(f"  {printable(line)}", markup=False)
