"""`medmax tokenize` and `medmax decode`: a VQ-GAN checked by hand, codes in plain files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.commands.checkpoint_options import CheckpointDir, Precision, VQGANFile, checkpoint_settings
from services.commands.files import read_integers, replace_file
from services.commands.output import Json, document, err, out, stdout_reserved

if TYPE_CHECKING:
    from services.config import Settings


def tokenize(
    picture: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="Picture file or DICOM.")
    ],
    checkpoint: CheckpointDir = None,
    vqgan: VQGANFile = None,
    dtype: Precision = None,
    as_json: Json = False,
) -> None:
    """Image codes of a picture."""
    settings = checkpoint_settings(checkpoint, vqgan, dtype)
    with stdout_reserved(as_json), err.status("encoding"):
        codes, grid = asyncio.run(_tokenize(settings, picture.read_bytes()))
    if as_json:
        document({"codes": codes, "grid": list(grid)})
    else:
        out.print(json.dumps(codes), markup=False)


async def _tokenize(settings: Settings, data: bytes) -> tuple[list[int], tuple[int, int]]:
    from services.tokenizer.tokenizer import ImageTokenizer

    tokenizer = ImageTokenizer.load(settings)
    try:
        tokens = await tokenizer.tokenize(data)
    finally:
        await tokenizer.close()
    return tokens.codes.tolist(), tokens.grid


def decode(
    codes: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, readable=True, help="JSON list of codes, or what `tokenize` prints."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", dir_okay=False, help=".png, .jpg or .webp")
    ],
    checkpoint: CheckpointDir = None,
    vqgan: VQGANFile = None,
    dtype: Precision = None,
    as_json: Json = False,
) -> None:
    """Picture of image codes. Its metadata say that it is synthetic."""
    from services.decoder.files import Format

    kinds = {".png": Format.PNG, ".jpg": Format.JPEG, ".jpeg": Format.JPEG, ".webp": Format.WEBP}
    kind = kinds.get(output.suffix.lower())
    if kind is None:
        raise typer.BadParameter("must end in .png, .jpg or .webp", param_hint="-o")
    settings = checkpoint_settings(checkpoint, vqgan, dtype)
    values = read_integers(codes)
    with stdout_reserved(as_json), err.status("decoding"):
        data, width, height = asyncio.run(_decode(settings, values, kind))
    replace_file(output, data)
    if as_json:
        document({"file": str(output), "width": width, "height": height})
    else:
        out.print(str(output), markup=False)


async def _decode(settings: Settings, codes: list[int], kind: Any) -> tuple[bytes, int, int]:
    import numpy as np

    from services.decoder.decoder import ImageDecoder
    from services.decoder.files import FileOptions

    decoder = ImageDecoder.load(settings)
    try:
        file = await decoder.decode(np.asarray(codes, np.int64), FileOptions(format=kind))
    finally:
        await decoder.close()
    return file.data, file.width, file.height
