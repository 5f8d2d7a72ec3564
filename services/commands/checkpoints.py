"""`medmax inspect` and `medmax convert`: checkpoints on disk."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from services.commands.checkpoint_options import VQGANFile
from services.commands.output import Json, document, err, out, say, stdout_reserved

GIB = 2**30


class To(StrEnum):
    """Layouts that `convert` writes."""

    OWN = "medmax"
    HUGGING_FACE = "hf"
    META = "meta"


Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="Checkpoint of any layout.", show_default=False)
]


def inspect(directory: Directory, vqgan: VQGANFile = None, as_json: Json = False) -> None:
    """What a checkpoint holds, the memory that it needs, and which service can use it."""
    from services.checkpoint import open_checkpoint
    from services.checkpoint.summary import describe
    from services.config import load

    with stdout_reserved(as_json), err.status("reading"):
        found = describe(open_checkpoint(directory, vqgan or load().vqgan))
    if as_json:
        document(found)
        return
    for name, value in _lines(found):
        out.print(f"{name:<12} {value}", markup=False)


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    config, vocabulary, image = found["config"], found["vocabulary"], found["image"]
    norm = "swin-norm" if config["swin_norm"] else "pre-norm"
    heads = f"{config['num_attention_heads']} heads over {config['num_key_value_heads']} key heads"
    ids = ", ".join(f"{n} {vocabulary[n]}" for n in ("bos", "eos", "begin_image", "end_image", "end_of_turn"))
    lines = [
        ("layout", found["layout"]),
        ("parameters", f"{found['parameters']:,} and {found['vqgan_parameters']:,} of the VQ-GAN"),
        ("dtype", ", ".join(f"{n} ({k} tensors)" for n, k in found["dtypes"].items())),
        ("shape", f"{config['num_hidden_layers']} layers of {config['hidden_size']}, {heads}, {norm}"),
        ("vocabulary", f"{vocabulary['size']} ids, {vocabulary['image_codes']} image codes; {ids}"),
        ("pictures", f"{image['size']} px, {image['grid'][0]}×{image['grid'][1]} codes"),
    ]
    for size, need in found["memory_per_gpu"].items():
        text = "cannot be shared so"
        if need is not None:
            text = (
                f"{need['total'] / GIB:.2f} GiB per GPU: {need['weights'] / GIB:.2f} weights, "
                f"{need['kv_cache'] / GIB:.2f} cache of 4096 positions (three times that under guidance)"
            )
        lines.append((f"TP {size}", text))
    usable = ", ".join(name for name, can in found["services"].items() if can) or "none"
    missing = ", ".join(name for name, can in found["services"].items() if not can)
    lines.append(("services", usable + (f"; not {missing}" if missing else "")))
    lines.append(("digest", found["digest"]))
    return lines


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Checkpoint of any layout.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="New folder; nothing is overwritten.")],
    to: Annotated[To, typer.Option("--to", help="Layout to write.")] = To.OWN,
    vqgan: VQGANFile = None,
    as_json: Json = False,
) -> None:
    """Rewrite a checkpoint in another layout, bit for bit, complete or not at all."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from services.checkpoint import Layout, open_checkpoint
    from services.checkpoint.convert import convert as rewrite
    from services.checkpoint.convert import total_bytes
    from services.config import load

    columns = (TextColumn("converting"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with stdout_reserved(as_json), Progress(*columns, console=err) as progress:
        checkpoint = open_checkpoint(source, vqgan or load().vqgan)
        task = progress.add_task("", total=total_bytes(checkpoint))
        written = rewrite(
            checkpoint, destination, Layout(to.value), lambda count: progress.advance(task, count)
        )
    if as_json:
        document(
            {"directory": str(destination), "layout": str(written.layout), "digest": written.digest}
            | {"files": written.file_digests, "source_digest": checkpoint.digest}
        )
    else:
        out.print(str(destination), markup=False)
        say(f"{written.layout} layout, digest {written.digest}")


def fetch(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="hf://OWNER/NAME@REVISION, s3://BUCKET/PATH or a folder.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="New folder; nothing is overwritten.")],
    digest: Annotated[str, typer.Option("--digest", help="SHA-256 that `medmax inspect` shows for it.")],
    vqgan: VQGANFile = None,
    as_json: Json = False,
) -> None:
    """Copy a checkpoint from a store, check it and its digest, and keep it whole or not at all."""
    from services.checkpoint.fetch import fetch as copy
    from services.config import load

    with stdout_reserved(as_json), err.status("fetching"):
        copied = copy(source, destination, digest, vqgan or load().vqgan)
    found = {"directory": str(destination), "digest": digest, "fetched": copied}
    if as_json:
        document(found)
    else:
        out.print(str(destination), markup=False)
        say("fetched" if copied else "was there already")
