"""Write a Triton model repository of the tokenizer and the decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services import config
from services.commands.checkpoint_options import CheckpointDir, VQGANFile
from services.commands.output import Json, document
from services.config import Device

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def triton(
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new or empty folder.")],
    checkpoint: CheckpointDir = None,
    vqgan: VQGANFile = None,
    device: Annotated[
        Device | None, typer.Option(help="Default: MEDMAX_DEVICE, else cpu.", show_default=False)
    ] = None,
    instances: Annotated[int, typer.Option(min=1, max=64, help="Of each model, on each GPU if there.")] = 1,
    seen_as: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where Triton will find the checkpoint, if elsewhere.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a Triton model repository of the tokenizer and the decoder; docs/open-inference.md."""
    from services.triton.repository import write

    given = {"checkpoint": checkpoint, "vqgan": vqgan, "device": device}
    settings = config.load(**{name: value for name, value in given.items() if value is not None})
    models = write(out, settings, instances, seen_as)
    if as_json:
        document({"repository": str(out), "models": [folder.name for folder in models]})
    else:
        print(f"{out}: {', '.join(folder.name for folder in models)}")
        print(f"tritonserver --model-repository={out}   # with this project importable there")
