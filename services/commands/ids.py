"""`medmax logits` and `medmax generate-ids`: a language model checked by hand, token ids in plain files."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.commands.checkpoint_options import CheckpointDir, Precision, checkpoint_settings
from services.commands.files import read_integers, replace_file
from services.commands.output import Json, document, err, out, say, stdout_reserved
from services.errors import InvalidInput

if TYPE_CHECKING:
    from services.config import Settings
    from services.llm.events import Answer
    from services.llm.request import GenerationRequest

IdsFile = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="JSON list of token ids.")
]


class Mode(StrEnum):
    """What `generate-ids` draws."""

    TEXT = "text"
    IMAGE = "image"


def logits(
    ids: IdsFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", dir_okay=False, help="NumPy file, .npy")
    ],
    checkpoint: CheckpointDir = None,
    dtype: Precision = None,
    as_json: Json = False,
) -> None:
    """Logits of the token after every position, float32 [positions, vocabulary]."""
    import io

    import numpy as np

    settings = checkpoint_settings(checkpoint, None, dtype)
    values = read_integers(ids)
    with stdout_reserved(as_json), err.status("reading"):
        found = _logits(settings, values)
    content = io.BytesIO()
    np.save(content, found)
    replace_file(output, content.getvalue())
    if as_json:
        document({"file": str(output), "shape": list(found.shape)})
    else:
        out.print(str(output), markup=False)


def _logits(settings: Settings, ids: list[int]) -> Any:
    import torch

    from services.checkpoint import open_checkpoint
    from services.llm.engine import dtype_of
    from services.llm.load import load_model

    checkpoint = open_checkpoint(settings.checkpoint, settings.vqgan)
    config = checkpoint.config
    if not 1 <= len(ids) <= config.context:
        raise InvalidInput(f"{len(ids)} ids; must be 1 to {config.context}", field="IDS")
    if min(ids) < 0 or max(ids) >= config.vocab_size:
        raise InvalidInput(f"an id is outside 0 to {config.vocab_size - 1}", field="IDS")
    model = load_model(checkpoint, str(settings.device), dtype_of(settings))
    with torch.inference_mode():
        found: Any = model(torch.tensor([ids], device=str(settings.device)))[0].float().cpu().numpy()
    return found


def generate_ids(
    ids: IdsFile,
    mode: Annotated[Mode, typer.Option(help="What to draw.")] = Mode.TEXT,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest.")] = False,
    max_new: Annotated[int | None, typer.Option(min=1, help="Most ids to print.")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="1 = none. Default: the checkpoint's.", show_default=False)
    ] = None,
    guidance_text: Annotated[
        float | None, typer.Option(help="Default: the checkpoint's.", show_default=False)
    ] = None,
    guidance_image: Annotated[
        float | None, typer.Option(help="Default: the checkpoint's.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**64 - 1, help="Repeat an answer.")] = None,
    checkpoint: CheckpointDir = None,
    dtype: Precision = None,
    as_json: Json = False,
) -> None:
    """Token ids that follow a prompt: text with the token that ends it, or the codes of one picture."""
    from services.llm.request import GenerationRequest, OutputMode, SamplingRequest

    settings = checkpoint_settings(checkpoint, None, dtype)
    sampling = SamplingRequest(
        temperature=0 if greedy else None,
        image_temperature=0 if greedy else None,
        repetition_penalty=repetition_penalty,
        guidance_text=guidance_text,
        guidance_image=guidance_image,
        seed=seed,
    )
    request = GenerationRequest(
        prompt_ids=read_integers(ids),
        mode=OutputMode(mode.value),
        # A picture is drawn whole, then cut.
        max_new_tokens=max_new if mode is Mode.TEXT else None,
        sampling=sampling,
        any_pictures=True,
    )
    with stdout_reserved(as_json), err.status("generating"):
        found, reason = _generate(settings, request)
    if as_json:
        document({"ids": found[:max_new], "finish_reason": reason})
    else:
        out.print(json.dumps(found[:max_new]), markup=False)
        say(reason)


def _generate(settings: Settings, request: GenerationRequest) -> tuple[list[int], str]:
    from dataclasses import replace

    from services.checkpoint import open_checkpoint
    from services.llm.engine import GUIDED_ROWS, Engine, dtype_of
    from services.llm.kv_cache import KVCache, blocks_for
    from services.llm.request import OutputMode

    checkpoint = open_checkpoint(settings.checkpoint, settings.vqgan)
    vocabulary = checkpoint.vocabulary
    if request.mode is OutputMode.IMAGE and request.prompt_ids[-1:] == [vocabulary.begin_image]:
        request = replace(request, prompt_ids=request.prompt_ids[:-1])  # the engine adds it
    blocks = GUIDED_ROWS * blocks_for(checkpoint.config.context)
    memory = blocks * KVCache.bytes_per_block(checkpoint.config, dtype_of(settings))
    settings = settings.model_copy(update={"max_batch": GUIDED_ROWS, "kv_cache_bytes": memory})
    engine = Engine(checkpoint, settings)
    try:
        answer: Answer = engine.generate_batch([request])[0]
    finally:
        engine.close()
    if request.mode is OutputMode.IMAGE:
        ids = vocabulary.code_ids[list(answer.pictures[0].codes)].tolist()
    else:
        ids = [*answer.token_ids, *([answer.finish.end_id] if answer.finish.end_id is not None else [])]
    return ids, answer.finish.reason.value
