"""Options of commands that read a checkpoint themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.config import DType, Settings, load

CheckpointDir = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint", metavar="DIR", help="Of any layout. Default: MEDMAX_CHECKPOINT.", show_default=False
    ),
]
VQGANFile = Annotated[
    Path | None,
    typer.Option(
        "--vqgan",
        metavar="FILE",
        help="Published vqgan.ckpt, for a checkpoint without its decoder. Default: MEDMAX_VQGAN.",
        show_default=False,
    ),
]
Precision = Annotated[
    DType | None,
    typer.Option(
        "--dtype",
        help="Of the language model; the VQ-GAN runs in float32. Default: MEDMAX_DTYPE.",
        show_default=False,
    ),
]


def checkpoint_settings(checkpoint: Path | None, vqgan: Path | None, dtype: DType | None) -> Settings:
    """Settings with what was given on the command line."""
    given = {"checkpoint": checkpoint, "vqgan": vqgan, "dtype": dtype}
    return load(**{name: value for name, value in given.items() if value is not None})
