"""`python -m annotation.labelstudio`: a Label Studio on loopback with the four projects, until Ctrl-C (`make serve-review`)."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from annotation.labelstudio.client import LabelStudio
from annotation.labelstudio.server import running
from services.commands.output import Json, complain, document, err, error_document
from services.errors import MedMaxError


def serve(
    folder: Annotated[Path, typer.Option(help="where its data live")] = Path("var/labelstudio"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8080,
    json: Json = False,
) -> None:
    """Start Label Studio, set up the review projects, and stay up."""
    # A plain `kill` ends it as Ctrl-C does: the server goes, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        err.print("starting Label Studio; a first time takes a minute or two")
        with running(folder, port) as server, LabelStudio(server.url, server.admin.token) as studio:
            projects = list(studio.ensure_projects().values())
            login = str(folder / "admin.json")
            if json:
                ids = {project.kind.value: project.id for project in projects}
                document({"url": server.url, "email": server.admin.email, "login": login, "projects": ids})
            else:
                print(f"Label Studio: {server.url}/user/login/")
                print(f"log in as {server.admin.email}; the password is in {login}")
                for project in projects:
                    print(
                        f"  {project.kind.value:11} {server.url}/projects/{project.id}/data  {project.state.value}"
                    )
                print("Ctrl-C ends it.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        err.print("ended")
    except MedMaxError as error:
        if json:
            error_document(error.code, error.message, error.field)
        else:
            complain(error)
        sys.exit(1)


if __name__ == "__main__":
    typer.run(serve)
