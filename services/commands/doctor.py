"""`medmax doctor`: what is wrong with the installation and how to mend it."""

from __future__ import annotations

import typer

from services.commands.output import Json, document, err, out, stdout_reserved

_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(as_json: Json = False) -> None:
    """Check the installation; exit status 1 where something fails."""
    from services.commands.checks import run_all

    checks = []
    with stdout_reserved(as_json), err.status("checking"):
        for check in run_all():
            checks.append(check)
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        document({"ok": not failed, "checks": [check.to_json() for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            out.print(f"[{_STYLE[check.status]}]{check.status:>4}[/]  {check.name:<{width}}  ", end="")
            out.print(check.detail, markup=False)
            if check.mend and check.status != "ok":
                out.print(f"{'':>{width + 8}}→ {check.mend}", style="dim", markup=False)
    if failed:
        raise typer.Exit(1)
