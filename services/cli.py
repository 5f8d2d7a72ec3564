"""`medmax`: the command line. Exit status 0 done, 1 failed, 2 wrong usage.

Commands of other packages come from the entry points `medmax.commands` and are imported when they are used.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import logging
import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from services.commands import ask, chat, checkpoints, codes, doctor, draw, ids, interactions
from services.commands.output import complain, document, err, error_document
from services.errors import ConfigurationError, MedMaxError

GROUP = "medmax.commands"
_OWN = (
    EntryPoint("serve", "services.serve_cli:app", GROUP),
    EntryPoint("rollout", "services.rollout.cli:app", GROUP),
    EntryPoint("triton", "services.triton.cli:app", GROUP),
)


def _lazy() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in (*_OWN, *entry_points(group=GROUP))}


def _summary(entry: EntryPoint) -> str:
    """First line of the module's docstring, read without running the module."""
    try:
        spec = importlib.util.find_spec(entry.module)
        source = spec.loader.get_source(entry.module) if spec and spec.loader else None  # type: ignore[attr-defined]
        text = ast.get_docstring(ast.parse(source)) if source else None
    except (ImportError, SyntaxError, AttributeError):
        text = None
    return text.splitlines()[0] if text else f"Commands of {entry.module}."


def _load(entry: EntryPoint) -> TyperCommand | TyperGroup:
    try:
        command: Any = typer.main.get_command(entry.load())
    except Exception as error:  # whatever importing it does
        raise ConfigurationError(
            f"the command `{entry.name}` cannot be loaded from {entry.value}: {type(error).__name__}: {error}"
        ) from error
    command.name = entry.name
    return command  # type: ignore[no-any-return]


class LazyGroup(TyperGroup):
    """Imports a command of another package when it is called; its line in the help needs no import."""

    _describing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted({*self.commands, *_lazy()})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        entry = _lazy().get(cmd_name)
        if entry is None:
            return None
        return TyperCommand(cmd_name, help=_summary(entry)) if self._describing else _load(entry)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._describing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._describing = False


app = typer.Typer(
    name="medmax",
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A biomedical assistant that reads and writes text and pictures. Not a medical device.",
)


@app.callback()
def _root(
    ctx: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""
    if show_version:
        raise typer.Exit(_print_version(as_json=False))


def _print_version(as_json: bool) -> int:
    number = version("medmax-serve")
    if as_json:
        document({"version": number})
    else:
        print(f"medmax {number}")
    return 0


app.command("ask")(ask.ask)
app.command("draw")(draw.draw)
app.command("chat")(chat.chat)
app.command("doctor")(doctor.doctor)
app.command("inspect")(checkpoints.inspect)
app.command("convert")(checkpoints.convert)
app.command("fetch")(checkpoints.fetch)
app.command("tokenize")(codes.tokenize)
app.command("decode")(codes.decode)
app.command("logits")(ids.logits)
app.command("generate-ids")(ids.generate_ids)
app.add_typer(interactions.app, name="interactions")


def main() -> NoReturn:
    """Run one command and exit. People never see a traceback, unless MEDMAX_DEBUG=1 asks for it."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    if "--version" in arguments and set(arguments) <= {"--version", "--json"}:
        return _print_version(as_json)
    try:
        status = typer.main.get_command(app).main(arguments, prog_name="medmax", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except MedMaxError as error:
        return _failed(error, as_json)
    except typer.TyperException as error:
        return _misused(error, as_json)
    except (typer.Abort, KeyboardInterrupt):
        err.print("stopped", style="dim")
        return 130
    except BrokenPipeError:
        # The reader went away; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if os.environ.get("MEDMAX_DEBUG") == "1":
            raise
        message = f"unforeseen {type(error).__name__}: {error} (MEDMAX_DEBUG=1 shows where)"
        return _failed(MedMaxError(message), as_json)


def _failed(error: MedMaxError, as_json: bool) -> int:
    if as_json:
        error_document(error.code, error.message, error.field)
    else:
        complain(error)
    return 1


def _misused(error: typer.TyperException, as_json: bool) -> int:
    if as_json:
        error_document("usage", error.format_message(), None)
    else:
        from typer import rich_utils

        rich_utils.rich_format_error(error)  # type: ignore[arg-type]
    return error.exit_code


if __name__ == "__main__":
    main()
