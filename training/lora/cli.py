"""`medmax train lora` and `medmax train merge`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from services.commands.checkpoint_options import VQGANFile
from services.commands.output import Json, document, err, out, printable, stdout_reserved


class Where(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Computing(StrEnum):
    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


Rows = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Instruction rows: .jsonl, .parquet or a folder of them.",
        show_default=False,
    ),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        "--preferences",
        metavar="PATH",
        help="Preference pairs, learnt by DPO, in place of --data.",
        show_default=False,
    ),
]


def lora(
    adapter: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the adapter to write.")],
    data: Rows = None,
    preferences: Pairs = None,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Checkpoint to adapt. Default: MEDMAX_CHECKPOINT.", show_default=False
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder that image_path starts from. Default: that of the data.",
            show_default=False,
        ),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Rows to validate on, in place of --holdout.", show_default=False),
    ] = None,
    holdout: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share of the pictures kept for validation, with all their rows."),
    ] = 0.02,
    validation_rows: Annotated[int, typer.Option(min=0, max=100_000, help="Most rows to validate on.")] = 256,
    epochs: Annotated[int, typer.Option(min=1, max=1000)] = 3,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1e-8, max=1, help="Peak learning rate. Default: 1e-4, for pairs 2e-5.", show_default=False
        ),
    ] = None,
    warmup: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the steps that the rate rises in.")
    ] = 0.1,
    batch: Annotated[
        int,
        typer.Option(
            min=1, max=65536, help="Packs in a step, over all workers; each computes its own one by one."
        ),
    ] = 8,
    length: Annotated[int, typer.Option(min=0, help="Ids in a pack; 0 = the model's context.")] = 0,
    rank: Annotated[int, typer.Option(min=1, max=1024)] = 16,
    alpha: Annotated[int, typer.Option(min=1, max=4096)] = 16,
    dropout: Annotated[float, typer.Option(min=0, max=0.9)] = 0.05,
    image_weight: Annotated[
        float,
        typer.Option(min=0, max=100, help="What an image code counts for in the loss beside a text id."),
    ] = 1.0,
    keep_weight: Annotated[
        float,
        typer.Option(
            min=0, max=1000, help='What straying from the base counts for in rows with "learn": "keep".'
        ),
    ] = 1.0,
    beta: Annotated[float, typer.Option(min=1e-4, max=10, help="DPO's, for pairs.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    workers: Annotated[
        int, typer.Option(min=1, max=1024, help="Processes that share every step, through Ray Train.")
    ] = 1,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Processor cores of each worker.")] = 1,
    device: Annotated[Where, typer.Option(help="auto = a GPU where there is one.")] = Where.AUTO,
    precision: Annotated[
        Computing, typer.Option(help="auto = bfloat16 where the processor multiplies it in hardware.")
    ] = Computing.AUTO,
    recompute: Annotated[
        bool, typer.Option(help="Keep less for the backward pass and compute it again.")
    ] = False,
    save_every: Annotated[
        int, typer.Option(min=1, help="Steps between saves: what a kill loses at most.")
    ] = 50,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 50,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Unfinished work; the same command goes on from there. Default: OUT.work",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[Path, typer.Option(metavar="FILE", help="Codes of pictures met before.")] = Path(
        "var/codes.sqlite3"
    ),
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first row that cannot be used.")
    ] = False,
    vqgan: VQGANFile = None,
    json: Json = False,
) -> None:
    """Fine-tune a checkpoint on instruction rows, or on preference pairs, with LoRA; text and pictures alike."""
    from training.extras import need

    if (data is None) == (preferences is None):
        raise typer.BadParameter("give one of the two", param_hint="--data, --preferences")
    need("peft", *(["pyarrow", "pandas"] if workers > 1 else []))
    with stdout_reserved(json):
        from services import config
        from training.lora.recipe import Job, Recipe
        from training.lora.run import train, with_defaults
        from training.progress import bars

        source = data or preferences
        assert source is not None
        settings = config.load(**{n: v for n, v in (("checkpoint", base), ("vqgan", vqgan)) if v is not None})
        where = device_of(device)
        recipe = Recipe(
            rank=rank, alpha=alpha, dropout=dropout, epochs=epochs, warmup=warmup, batch=batch, length=length,
            rate=rate or (2e-5 if preferences else 1e-4), image_weight=image_weight, beta=beta,
            keep_weight=keep_weight, pairs=preferences is not None, holdout=holdout, seed=seed, bfloat16=_narrow(precision, where),
        )  # fmt: skip
        job = Job(
            recipe, base=settings.checkpoint, data=source, out=adapter, vqgan=settings.vqgan, validation=validation,
            work=work or adapter.with_name(f"{adapter.name}.work"), cache=cache, strict=strict,
            images=images or (source if source.is_dir() else source.parent), validation_rows=validation_rows,
            validate_every=validate_every, save_every=save_every, workers=workers, threads=threads, device=where,
            recompute=recompute,
        )  # fmt: skip
        with bars() as progress:
            result = train(with_defaults(job), progress)
    if json:
        document(result)
    else:
        _report(result)


def device_of(asked: Where) -> str:
    import torch

    if asked is Where.CUDA and not torch.cuda.is_available():
        raise typer.BadParameter("this machine has no GPU that torch can use", param_hint="--device")
    if asked is Where.AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked.value


def _narrow(asked: Computing, device: str) -> bool:
    import torch

    from training.losses import bfloat16_pays

    if asked is Computing.AUTO:
        return torch.cuda.is_bf16_supported() if device == "cuda" else bfloat16_pays()
    return asked is Computing.BFLOAT16


def _report(result: dict[str, Any]) -> None:
    rows = result["rows"]
    err.print(
        f"{rows['learnt']} rows learnt, {rows['held_out']} held out, {rows['left_out']} left out of {rows['read']};"
        f" {result['steps']} steps in {result['seconds']} s, {result['tokens_per_s']} tokens/s"
    )
    for reason, found in result["left_out"].items():
        first = found["first"][0]
        err.print(
            printable(f"  {found['count']} {reason}, first {first['row']}: {first['message']}"), markup=False
        )
    for name in ("first", "last"):
        err.print(f"  {name} step: " + ", ".join(f"{key} {value:.4g}" for key, value in result[name].items()))
    if result["validation"]:
        last = result["validation"][-1]
        err.print("  validation: " + ", ".join(f"{key} {last[key]:.4g}" for key in last if key != "step"))
    out.print(result["adapter"], markup=False)


def merge(
    adapter: Annotated[Path, typer.Option(metavar="DIR", help="Folder that `train lora` or PEFT wrote.")],
    checkpoint: Annotated[Path, typer.Option("--out", metavar="DIR", help="Checkpoint directory to write.")],
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="What the adapter was trained on. Default: MEDMAX_CHECKPOINT.",
            show_default=False,
        ),
    ] = None,
    weight: Annotated[
        float,
        typer.Option(min=0, max=2, help="Share of the adapter: less forgets less of what the base knew."),
    ] = 1.0,
    vqgan: VQGANFile = None,
    json: Json = False,
) -> None:
    """Add an adapter to its base's weights: a checkpoint of its own, in our layout."""
    from rich.progress import Progress

    from services import config
    from services.checkpoint import open_checkpoint
    from services.checkpoint.convert import total_bytes
    from training.lora.merge import merge as merged

    settings = config.load(**{n: v for n, v in (("checkpoint", base), ("vqgan", vqgan)) if v is not None})
    with stdout_reserved(json), Progress(console=err, transient=True) as shown:
        task = shown.add_task(
            "merging", total=total_bytes(open_checkpoint(settings.checkpoint, settings.vqgan))
        )
        written = merged(
            settings.checkpoint, adapter, checkpoint, weight, settings.vqgan,
            advance=lambda count: shown.update(task, advance=count),
        )  # fmt: skip
    if json:
        document({"checkpoint": str(checkpoint), "digest": written.digest, "weight": weight})
    else:
        out.print(str(checkpoint), markup=False)
