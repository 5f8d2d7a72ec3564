"""What every command prints with: people's text, one JSON document, progress and errors on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from services.errors import MedMaxError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")
]


def document(value: dict[str, Any]) -> None:
    """Print `value` as the command's one JSON document."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def error_document(code: str, message: str, field: str | None) -> None:
    """Print what went wrong as the command's one JSON document."""
    document({"error": {"code": code, "message": message, "field": field}})


def printable(text: str) -> str:
    """`text` with nothing in it that could steer a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def say(text: str) -> None:
    """A line of progress, on stderr."""
    err.print(printable(text), style="dim", markup=False)


def complain(error: MedMaxError) -> None:
    """An error for people, on stderr."""
    err.print("[bold red]error[/]", end=" ")
    err.print(printable(str(error)), markup=False)


@contextmanager
def stdout_reserved(reserve: bool) -> Iterator[None]:
    """While it lasts, whatever libraries print to stdout, also from C, goes to stderr."""
    if not reserve:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
