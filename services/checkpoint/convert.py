"""Rewriting a checkpoint in another layout, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from services.checkpoint.checkpoint import Checkpoint, Layout
from services.checkpoint.export_hf import write_hugging_face
from services.checkpoint.export_meta import write_meta
from services.checkpoint.extras import keep
from services.checkpoint.files import write_json
from services.checkpoint.own import CONFIG, PROVENANCE, TOKENIZER, VQGAN_FILE
from services.checkpoint.reader import open_checkpoint
from services.checkpoint.staging import Advance, nbytes, staged, stream_safetensors, stream_shards
from services.checkpoint.write import own_config
from services.errors import CheckpointError

SHARD_BYTES = 5 * 10**9


def total_bytes(checkpoint: Checkpoint) -> int:
    """Size of all weights, VQ-GAN included."""
    parts = (checkpoint.weights, checkpoint.vqgan_weights)
    return sum(nbytes(weights, name) for weights in parts for name in weights)


def convert(
    source: Checkpoint,
    path: Path | str,
    layout: Layout = Layout.OWN,
    advance: Advance = lambda count: None,
    shard_bytes: int = SHARD_BYTES,
    provenance: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Write `source` to the new directory `path` in `layout`, complete or not at all, and open it.

    Args:
        advance: called with the number of bytes written.
        shard_bytes: largest safetensors file.
        provenance: what else `provenance.json` says, where `source` is more than read (`command` among it).

    Raises:
        CheckpointError: `path` exists, the disk is too small, a part is missing or damaged, or the layout cannot hold
            the model.
    """
    path = Path(path)
    if path.exists():
        raise CheckpointError(
            "the destination exists and is never overwritten; name another folder", field=path.name
        )
    source.vqgan_tensors(encoder=True, decoder=True)
    source.vocabulary.encode("")  # refuses where there is no tokenizer
    with staged(path) as staging:
        free = shutil.disk_usage(staging).free
        if free < total_bytes(source):
            raise CheckpointError(
                f"{total_bytes(source)} bytes are needed on the disk and {free} are free", field=path.name
            )
        if layout is Layout.OWN:
            _write_own(source, staging, advance, shard_bytes)
        elif layout is Layout.META:
            write_meta(source, staging, advance)
        else:
            write_hugging_face(source, staging, advance, shard_bytes)
        _write_provenance(source, staging, layout, provenance or {})
        staging.rename(path)
    return open_checkpoint(path)


def _write_own(source: Checkpoint, folder: Path, advance: Advance, shard_bytes: int) -> None:
    write_json(folder / CONFIG, own_config(source.config, source.vq_config, source.generation))
    (folder / TOKENIZER).write_text(source.vocabulary.tokenizer_json, encoding="utf-8")
    model = {name: (source.weights, name) for name in source.config.shapes()}
    stream_shards(folder, model, shard_bytes, advance)
    vqgan = {name: (source.vqgan_weights, name) for name in sorted(source.vqgan_weights)}
    stream_safetensors(folder / VQGAN_FILE, vqgan, advance)


def _write_provenance(source: Checkpoint, folder: Path, layout: Layout, more: Mapping[str, Any]) -> None:
    provenance: dict[str, Any] = {
        "command": "medmax convert",
        "version": version("medmax-serve"),
        "layout": str(layout),
        "source": {
            "layout": str(source.layout),
            "digest": source.digest,
            "files": source.file_digests,
            "provenance": dict(source.provenance),
        },
        **more,
    }
    if layout is not Layout.OWN:
        provenance |= keep(source.generation, source.config.context)
    write_json(folder / PROVENANCE, provenance)
    written = open_checkpoint(folder)
    provenance |= {"files": written.file_digests, "digest": written.digest}
    write_json(folder / PROVENANCE, provenance)
