"""Train models: fine-tune with LoRA, merge adapters, train the small model that ships with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.commands.output import Json, document, err
from training.lora.cli import lora, merge

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.callback()
def _group() -> None:
    """Train models: fine-tune with LoRA, merge adapters, train the small model that ships with the project."""


@app.command()
def phantom(
    out: Annotated[Path, typer.Option(help="Checkpoint directory to write.")] = Path("models/phantom-new"),
    work: Annotated[
        Path, typer.Option(help="Where unfinished work is kept; the same command goes on from there.")
    ] = Path("var/train-phantom"),
    seed: Annotated[int, typer.Option(min=0, max=999, help="Decides phantoms, weights and order.")] = 0,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Processor cores to use.")] = 2,
    shorten: Annotated[
        int, typer.Option(min=1, max=1000, help="Divide steps and phantoms, to try the machinery.")
    ] = 1,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY:TOPIC",
            help="Leave this modality's questions about side, size or count out; may be repeated.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train the phantom model from scratch: VQ-GAN, then decoder. At most 90 minutes on 2 cores."""
    from training.phantom.recipe import Recipe
    from training.phantom.run import train
    from training.phantom.without import parse_slice
    from training.progress import bars

    try:
        slices = tuple(sorted({parse_slice(text) for text in without or ()}))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--without") from None
    recipe = Recipe(seed=seed, without=slices)
    if shorten > 1:
        recipe = recipe.shortened(shorten)
    with bars() as progress:
        provenance = train(recipe, out, work, threads, progress)
    if json:
        document({"checkpoint": str(out), "provenance": provenance})
    else:
        err.print(f"Trained in {provenance['minutes']['total']} minutes: {out}")


app.command("lora")(lora)
app.command("merge")(merge)
