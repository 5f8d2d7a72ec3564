"""`medmax chat`: a conversation in the terminal, or with a script through stdin."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.commands.options import Adapter, Local, Server, parse_window
from services.commands.output import Json, document, err, say, stdout_reserved

if TYPE_CHECKING:
    from services.commands.dialogue import Dialogue

HELP = "/picture FILE shows a picture with the next message · /new starts afresh · /quit ends"


def chat(
    picture: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, readable=True, help="Picture to begin with.")
    ] = None,
    server: Server = None,
    local: Local = False,
    adapter: Adapter = "",
    window: Annotated[
        str | None, typer.Option(metavar="C,W", help="DICOM window: centre and width, after rescale.")
    ] = None,
    folder: Annotated[Path, typer.Option("--out", file_okay=False, help="Where drawn pictures go.")] = Path(
        "out"
    ),
    seed: Annotated[int | None, typer.Option(min=0, max=2**64 - 1, help="Repeat a conversation.")] = None,
    as_json: Json = False,
) -> None:
    """Talk with the assistant, in text and pictures. Reads one message a line; ends with the input."""
    from services.commands.dialogue import Dialogue

    shown = parse_window(window)
    with stdout_reserved(as_json):
        from services.commands.assistants import connect

        # Between turns the event loop rests, so that Ctrl-C and line editing work as people expect.
        with asyncio.Runner() as runner:
            connection = connect(server, local)
            assistant = runner.run(connection.__aenter__())
            try:
                dialogue = Dialogue(assistant, folder, seed, show=not as_json, adapter=adapter)
                if picture is not None:
                    dialogue.attach(picture, shown)
                _talk(dialogue, runner)
            finally:
                runner.run(connection.__aexit__(None, None, None))
    if as_json:
        document(dialogue.to_json())
    # At a terminal, a person saw the error and went on.
    if dialogue.failures and not sys.stdin.isatty():
        raise typer.Exit(1)


def _talk(dialogue: Dialogue, runner: asyncio.Runner) -> None:
    if sys.stdin.isatty():
        say(HELP)
    for line in _lines():
        if line in {"/quit", "/exit"}:
            return
        if line == "/help":
            say(HELP)
        elif line == "/new":
            dialogue.restart()
            say("a new conversation")
        elif line.split()[:1] == ["/picture"]:
            dialogue.attach(Path(line.removeprefix("/picture").strip()))
        elif line:
            try:
                runner.run(dialogue.turn(line))
            except KeyboardInterrupt:
                say("stopped")


def _lines() -> Iterator[str]:
    """Lines of stdin without surrounding blanks; with a prompt and line editing at a terminal."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin)
        return
    import readline  # noqa: F401  (gives `input` its line editing)

    while True:
        err.print("[bold]you[/]  ", end="")
        try:
            yield input().strip()
        except EOFError:
            return
