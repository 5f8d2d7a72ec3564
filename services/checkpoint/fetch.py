"""A checkpoint from any store that fsspec reaches (hf://, s3://, a folder) into a folder, checked before it is kept."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from services.checkpoint.reader import open_checkpoint
from services.checkpoint.staging import staged
from services.errors import CheckpointError, ConfigurationError, Unavailable
from services.stores import open_store

_DIGEST = re.compile(r"[0-9a-f]{64}")


def fetch(source: str, destination: Path, digest: str, vqgan: Path | None = None) -> bool:
    """Copies the checkpoint at `source`; returns False where `destination` holds it already.

    `destination` appears whole or not at all. One fetch at a time for each destination: what an earlier one left
    half-done is removed.

    Args:
        digest: SHA-256, hex, of the weights (`Checkpoint.digest`).
        vqgan: published vqgan.ckpt, for checkpoints without the VQ-GAN's decoder.

    Raises:
        ConfigurationError: an argument is wrong, or the store's package is not installed.
        CheckpointError: what was fetched, or is there, is damaged or another checkpoint.
        Unavailable: the store is out of reach, or holds nothing at that place.
    """
    if not _DIGEST.fullmatch(digest):
        raise ConfigurationError("must be 64 hexadecimal digits, lower case", field="--digest")
    if destination.exists():
        _check(destination, digest, vqgan)
        return False
    store, root = open_store(source, "SRC")
    for half in destination.parent.glob(f".{destination.name}-*"):
        shutil.rmtree(half, ignore_errors=True)
    with staged(destination) as staging:
        try:
            store.get(f"{root.rstrip('/')}/", f"{staging}/", recursive=True)
        except Exception as error:  # each store has errors of its own
            raise Unavailable(f"cannot be read: {type(error).__name__}", field="SRC") from error
        _check(staging, digest, vqgan)
        staging.rename(destination)
    return True


def _check(path: Path, digest: str, vqgan: Path | None) -> None:
    found = open_checkpoint(path, vqgan).digest
    if found != digest:
        raise CheckpointError(f"the weights' digest is {found}", field="--digest")
