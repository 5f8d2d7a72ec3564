"""Image codes of a folder of pictures or of a data set, written as parquet shards on Ray Data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.commands.checkpoint_options import CheckpointDir, VQGANFile
from services.commands.output import Json, document, err, out, printable, stdout_reserved
from training.lora.cli import Where, device_of

app = typer.Typer()


@app.command()
def tokenize_dataset(
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder of pictures; or rows in MedMax's schema: .jsonl, .parquet or a folder of them."
        ),
    ],
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the shards. Those there already stay.")
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder that image_path starts from. Default: that of the data.",
            show_default=False,
        ),
    ] = None,
    shard_rows: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Rows of a shard: what a kill loses at most.")
    ] = 1000,
    workers: Annotated[
        int, typer.Option(min=1, max=1024, help="Tokenizers at work; RAY_ADDRESS names a cluster.")
    ] = 1,
    device: Annotated[Where, typer.Option(help="auto = a GPU where there is one.")] = Where.AUTO,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that fails.")] = False,
    checkpoint: CheckpointDir = None,
    vqgan: VQGANFile = None,
    json: Json = False,
) -> None:
    """Image codes of a folder of pictures or of a data set, as parquet shards. The same command goes on where it stopped.

    A folder gives `image_path, image_tokens`; rows give MedMax's schema with `tokens`, which `train lora` reads.
    """
    from training.extras import need

    need("pyarrow", "pandas")
    if not data.exists():
        raise typer.BadParameter("there is no such file or folder", param_hint="DATA")
    with stdout_reserved(json):
        from services.commands.checkpoint_options import checkpoint_settings
        from training.progress import bars
        from training.tokens.run import tokenize_dataset as run
        from training.tokens.shard import Task

        settings = checkpoint_settings(checkpoint, vqgan, None)
        task = Task(
            data=str(data.absolute()),
            listing=None,
            images=str((images or (data if data.is_dir() else data.parent)).absolute()),
            out=str(folder.absolute()),
            checkpoint=str(settings.checkpoint.absolute()),
            vqgan=str(settings.vqgan.absolute()) if settings.vqgan else None,
            device=device_of(device),
            shard_rows=shard_rows,
            strict=strict,
        )
        with bars() as progress:
            result = run(task, workers, progress)
    if json:
        document(result)
        return
    err.print(f"{result['rows']} tokenized in {result['shards']} shards, {result['failed']} failed")
    for reason, found in result["left_out"].items():
        first = found["first"][0]
        err.print(
            printable(f"  {found['count']} {reason}, first {first['row']}: {first['message']}"), markup=False
        )
    out.print(str(folder), markup=False)
