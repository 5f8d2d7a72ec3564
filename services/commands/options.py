"""Options that several commands share."""

from __future__ import annotations

import math
from typing import Annotated

import typer

Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Server to ask. Default: MEDMAX_SERVER, else http://127.0.0.1:8000 where one answers, else in process. "
        "Its key is read from MEDMAX_API_KEY.",
        show_default=False,
    ),
]
Adapter = Annotated[
    str,
    typer.Option(metavar="NAME", help="Adapter to answer under, one of MEDMAX_ADAPTERS.", show_default=False),
]
Local = Annotated[bool, typer.Option("--local", help="In process, even where a server answers.")]


def not_blank(text: str) -> str:
    """`text`, which must say something.

    Raises:
        typer.BadParameter: it is empty.
    """
    if not text.strip():
        raise typer.BadParameter("must not be empty")
    return text


def parse_window(text: str | None) -> tuple[float, float] | None:
    """`C,W` as centre and width.

    Raises:
        typer.BadParameter: not two numbers, or the width is not above 0.
    """
    if text is None:
        return None
    try:
        center, width = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter("must be two numbers, C,W", param_hint="--window") from None
    if not (math.isfinite(center) and math.isfinite(width) and width > 0):
        raise typer.BadParameter("must be finite, the width above 0", param_hint="--window")
    return center, width
