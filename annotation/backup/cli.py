"""Back up and restore everything that an installation cannot make again."""

from __future__ import annotations

from typing import Annotated

import typer

from services.commands.output import Json, document, out, printable

app = typer.Typer(no_args_is_help=True, help=__doc__)

Where = Annotated[
    str,
    typer.Argument(metavar="ARCHIVE", help="Folder of the back-ups, or an address such as s3://BUCKET/PATH."),
]
Which = Annotated[str, typer.Argument(metavar="BACKUP", help="A back-up's name, or how it begins.")]


@app.command()
def create(
    archive: Where,
    keep_days: Annotated[
        int | None,
        typer.Option(
            min=1, max=36500, help="Then delete back-ups that are older. Default: none.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a back-up of the database, its pictures, the data and model versions and the review's secret."""
    from annotation.backup.create import create
    from services.config import load

    made = create(load(), archive, keep_days)
    if as_json:
        document(made.to_json())
    else:
        out.print(
            f"{made.name}: {made.pictures:,} pictures ({made.new_pictures:,} of them new), {made.files:,} files, "
            f"{made.bytes / 2**20:,.1f} MiB of tables and files; {made.pruned} older back-ups deleted",
            markup=False,
        )
        for version in made.outside:
            out.print(
                f"  not in it, since not below the data folder: version {printable(version)}", markup=False
            )
        for sha256 in made.missing:
            out.print(f"  missing or damaged in the object store: picture {sha256}", markup=False)
    if made.missing or made.outside:
        # So that a job that nobody reads turns red; the back-up is there all the same.
        raise typer.Exit(1)


@app.command("list")
def list_(archive: Where, as_json: Json = False) -> None:
    """Names of the back-ups, oldest first."""
    from annotation.backup.archive import Archive

    names = Archive.open(archive).names()
    if as_json:
        document({"backups": names})
        return
    for name in names:
        out.print(name, markup=False)


@app.command()
def verify(archive: Where, backup: Which = "latest", as_json: Json = False) -> None:
    """Read every byte of a back-up and name what is missing or damaged."""
    from annotation.backup.archive import Archive

    opened = Archive.open(archive)
    name = opened.find(backup)
    damaged = opened.damaged(opened.load(name))
    if as_json:
        document({"backup": name, "damaged": damaged})
    else:
        out.print(f"{name}: {'damaged' if damaged else 'whole'}", markup=False)
        for each in damaged:
            out.print(f"  {printable(each)}", markup=False)
    if damaged:
        raise typer.Exit(1)


@app.command()
def restore(archive: Where, backup: Which = "latest", as_json: Json = False) -> None:
    """Restore into an installation that holds nothing yet: the one that MEDMAX_* settings name."""
    from annotation.backup.restore import restore
    from services.config import load

    done = restore(load(), archive, backup)
    if as_json:
        document(done.to_json())
        return
    out.print(f"{done.name}: {done.pictures:,} pictures, {done.files:,} files and the database", markup=False)
    for sha256 in done.missing:
        out.print(f"  was missing already: picture {sha256}", markup=False)
    for version in done.outside:
        out.print(f"  was not in the back-up: version {printable(version)}", markup=False)
