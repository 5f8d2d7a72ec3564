"""`medmax interactions`: what is stored, for the operator of the installation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.commands.output import Json, document, out, printable

if TYPE_CHECKING:
    from services.interactions import InteractionStore
    from services.pb.medmax.v1 import assistant_pb2

app = typer.Typer(no_args_is_help=True, help="Show or purge stored interactions.")


def _open() -> InteractionStore:
    from services.config import load
    from services.interactions import InteractionStore

    return InteractionStore.open(load())


@app.command()
def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be deleted.")] = False,
    as_json: Json = False,
) -> None:
    """Delete interactions whose days are over, their feedback and the pictures nothing else needs."""
    store = _open()
    try:
        report = store.purge(dry_run=dry_run)
    finally:
        store.close()
    if as_json:
        document(report.to_json())
        return
    out.print(
        f"{'would delete' if dry_run else 'deleted'}: {report.interactions:,} interactions, "
        f"{report.feedback:,} records of feedback, {report.pictures:,} pictures ({report.picture_bytes / 2**20:.1f} MiB)"
    )


@app.command()
def show(
    interaction_id: Annotated[str, typer.Argument(metavar="ID", help="int_ and 32 hexadecimal digits.")],
    pictures: Annotated[
        Path | None, typer.Option(help="Folder to save the pictures in.", file_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Print one interaction, whoever's it is."""
    store = _open()
    try:
        interaction = asyncio.run(store.get(interaction_id, None, include_images=pictures is not None))
    finally:
        store.close()
    saved = _save_pictures(interaction, pictures) if pictures else []
    if as_json:
        from google.protobuf.json_format import MessageToDict

        document(
            {**MessageToDict(interaction, preserving_proto_field_name=True), "saved": [str(p) for p in saved]}
        )
    else:
        _print(interaction)
        for path in saved:
            out.print(str(path), markup=False)


def _save_pictures(interaction: assistant_pb2.Interaction, folder: Path) -> list[Path]:
    """Files named by their SHA-256; the bytes leave `interaction`."""
    from services.interactions.records import images

    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for image in images(interaction):
        path = folder / f"{image.sha256}{_SUFFIXES.get(image.mime_type, '')}"
        path.write_bytes(image.data)
        image.ClearField("data")
        saved.append(path)
    return saved


_SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/tiff": ".tif",
    "image/bmp": ".bmp",
    "application/dicom": ".dcm",
}


def _print(interaction: assistant_pb2.Interaction) -> None:
    from services.pb.medmax.v1 import assistant_pb2

    out.print(f"[bold]{interaction.id}[/]")
    for name, value in (
        ("asked by", interaction.caller),
        ("at", interaction.created_at.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")),
        ("kept until", interaction.expires_at.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")),
        ("model", f"{interaction.model.id} {interaction.model.digest[:12]}"),
        ("took", f"{interaction.latency.total_ms:.0f} ms"),
        ("training use", "consented" if interaction.consent_training else "no consent"),
    ):
        out.print(f"[dim]{name:>13}[/]  ", end="")
        out.print(printable(value), markup=False)
    answer = assistant_pb2.Message(role=assistant_pb2.ROLE_ASSISTANT, parts=interaction.output)
    for message in (*interaction.prompt, answer):
        role = assistant_pb2.Role.Name(message.role).removeprefix("ROLE_").lower()
        for part in message.parts:
            picture = f"[picture {part.image.width}×{part.image.height} {part.image.sha256[:12]}]"
            out.print(f"[cyan]{role:>13}[/]  ", end="")
            out.print(printable(part.text) if part.WhichOneof("part") == "text" else picture, markup=False)
    for each in interaction.feedback:
        said = [f"rating {each.rating}"] if each.HasField("rating") else []
        said += ["flagged"] if each.flag else []
        said += [text for text in (each.comment, each.corrected_text) if text]
        out.print("[yellow]     feedback[/]  ", end="")
        out.print(printable("; ".join(said)), markup=False)
