"""Versions of instruction data made from experts' verdicts: list, show, compare, verify, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.commands.output import Json, document, out, printable, stdout_reserved

if TYPE_CHECKING:
    from annotation.dataset.versions import Version

app = typer.Typer(no_args_is_help=True, help=__doc__)

Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="Folder of the versions. Default: datasets below MEDMAX_DATA_DIR.",
        show_default=False,
    ),
]
Which = Annotated[str, typer.Argument(metavar="VERSION", help="First digits of its digest, or latest.")]


def _root(root: Path | None) -> Path:
    from services.config import load

    return root or load().data_dir / "datasets"


def _version(root: Path | None, which: str) -> Version:
    from annotation.dataset.versions import load

    return load(_root(root), which)


@app.callback()
def _group() -> None:
    """Versions of instruction data made from experts' verdicts: list, show, compare, verify, export."""


@app.command("list")
def list_(root: Root = None, json: Json = False) -> None:
    """Every version, oldest first."""
    from annotation.dataset.versions import list_versions

    found = list_versions(_root(root))
    if json:
        fields = ("digest", "created_at", "parents", "counts", "dropped")
        document({"versions": [{name: v.manifest[name] for name in fields} for v in found]})
        return
    for version in found:
        counts = version.manifest["counts"]
        out.print(
            f"{version.id}  {version.manifest['created_at']}  {counts['rows.jsonl']:,} rows, "
            f"{counts['preferences.jsonl']:,} pairs, {counts['unpaired.jsonl']:,} unpaired",
            markup=False,
        )


@app.command()
def show(which: Which, root: Root = None, json: Json = False) -> None:
    """The card of a version; with --json its manifest without the list of files."""
    version = _version(root, which)
    if json:
        document({"path": str(version.path), **version.summary()})
        return
    out.print(printable((version.path / "README.md").read_text(encoding="utf-8")), markup=False)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="First digits of its digest, or latest.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="First digits of its digest, or latest.")],
    root: Root = None,
    json: Json = False,
) -> None:
    """What the second version added, removed and changed, by interaction."""
    from annotation.dataset.diff import diff as compare
    from annotation.dataset.diff import text

    one, other = _version(root, before), _version(root, after)
    changes = compare(one, other)
    if json:
        document(
            {"before": one.digest, "after": other.digest, "changes": [change.to_json() for change in changes]}
        )
        return
    for line in text(changes):
        out.print(printable(line), markup=False)


@app.command()
def verify(which: Which, root: Root = None, json: Json = False) -> None:
    """Whether every file is what was written. Exit status 1 where one is not."""
    from annotation.dataset.versions import verify as check

    version = _version(root, which)
    wrong = check(version)
    if json:
        document({"digest": version.digest, "ok": not wrong, "wrong": wrong})
    else:
        for sentence in wrong or [f"{version.id} is what was written"]:
            out.print(printable(sentence), markup=False)
    if wrong:
        raise typer.Exit(1)


@app.command()
def export(
    which: Which,
    folder: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Empty folder, or an address for fsspec.")
    ],
    root: Root = None,
    json: Json = False,
) -> None:
    """Parquet with the pictures inside, which `datasets.load_dataset` reads."""
    from annotation.dataset.export import export as write

    version = _version(root, which)
    with stdout_reserved(json):
        result = write(version, folder)
    if json:
        document(result)
        return
    for name, count in result["records"].items():
        out.print(f"{name}  {count:,} records", markup=False)
