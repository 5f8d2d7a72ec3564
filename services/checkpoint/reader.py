"""Which layout a directory has, and its description."""

from __future__ import annotations

from pathlib import Path

from services.checkpoint.checkpoint import Checkpoint
from services.checkpoint.files import read_json
from services.checkpoint.huggingface import is_hugging_face, open_hugging_face
from services.checkpoint.meta import find_meta, open_meta
from services.checkpoint.own import CONFIG, open_own
from services.errors import CheckpointError


def open_checkpoint(path: Path | str, vqgan: Path | str | None = None) -> Checkpoint:
    """Describe the checkpoint directory `path`, of any layout, and check that its parts fit each other.

    Args:
        path: our layout's or Hugging Face's directory; Meta's root (with `models/` and `tokenizer/`) or one of its
            models.
        vqgan: the published `vqgan.ckpt`, for layouts without the VQ-GAN's decoder.

    Raises:
        CheckpointError: a file, setting or tensor is missing or damaged, or two of them disagree.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(
            "the checkpoint directory does not exist; set MEDMAX_CHECKPOINT", field="checkpoint"
        )
    if (path / CONFIG).is_file():
        if is_hugging_face(read_json(path / CONFIG)):
            return open_hugging_face(path, Path(vqgan) if vqgan else None)
        return open_own(path)
    if (meta := find_meta(path)) is not None:
        return open_meta(meta)
    raise CheckpointError(
        "the checkpoint lacks config.json (our layout and Hugging Face's) or models/*/params.json (Meta's)",
        field=CONFIG,
    )
