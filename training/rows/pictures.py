"""Codes of the pictures that rows name: read below one folder, encoded once, kept on disk by their content."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.checkpoint import Checkpoint
from services.config import Settings
from services.errors import InvalidInput, MedMaxError
from training.rows.trouble import Reason, Unusable

if TYPE_CHECKING:
    from services.tokenizer.tokenizer import ImageTokenizer


def encoder_digest(checkpoint: Checkpoint) -> str:
    """SHA-256, hex, of what decides a picture's codes: the encoder, its codebook and the size of its input."""
    whole = hashlib.sha256(repr(checkpoint.vq_config).encode())
    weights = checkpoint.vqgan_tensors(encoder=True)
    for name in sorted(name for name in weights if name.startswith(("encoder.", "quant"))):
        whole.update(name.encode() + weights[name].float().contiguous().numpy().tobytes())
    return whole.hexdigest()


class CodeCache:
    """Codes by content and encoder in one SQLite file; several processes may use it at once."""

    def __init__(self, path: Path, encoder: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._encoder = encoder
        self._database = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS codes (content TEXT, encoder TEXT, codes BLOB, PRIMARY KEY (content, encoder))"
            " WITHOUT ROWID"
        )

    def get(self, content: str) -> NDArray[np.int64] | None:
        found = self._database.execute(
            "SELECT codes FROM codes WHERE content = ? AND encoder = ?", (content, self._encoder)
        ).fetchone()
        return None if found is None else np.frombuffer(found[0], np.uint16).astype(np.int64)

    def put(self, content: str, codes: NDArray[np.int64]) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO codes VALUES (?, ?, ?)",
            (content, self._encoder, codes.astype(np.uint16).tobytes()),
        )

    def close(self) -> None:
        self._database.close()


class Encoder:
    """The tokenizer service's own class, called without an event loop around it. Loaded when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._tokenizer: ImageTokenizer | None = None

    def codes(self, files: list[bytes]) -> list[NDArray[np.int64] | MedMaxError]:
        """Codes of each picture file, or why there are none."""
        return self._loop.run_until_complete(self._all(files))

    async def _all(self, files: list[bytes]) -> list[NDArray[np.int64] | MedMaxError]:
        if self._tokenizer is None:
            from services.tokenizer.tokenizer import ImageTokenizer

            self._tokenizer = ImageTokenizer.load(self._settings)
        return list(await asyncio.gather(*(self._one(self._tokenizer, data) for data in files)))

    async def _one(self, tokenizer: ImageTokenizer, data: bytes) -> NDArray[np.int64] | MedMaxError:
        try:
            return (await tokenizer.tokenize(data)).codes.astype(np.int64)
        except InvalidInput as error:  # of one picture; anything else ends the run
            return error

    def close(self) -> None:
        if self._tokenizer is not None:
            self._loop.run_until_complete(self._tokenizer.close())
        self._loop.close()


class Pictures:
    """Codes of the pictures below `root`."""

    def __init__(self, root: Path, settings: Settings, cache: CodeCache | None = None) -> None:
        self._root, self._limit, self._cache = root.resolve(), settings.max_image_bytes, cache
        self._encoder = Encoder(settings)

    def file(self, path: str) -> Path:
        """Raises: Unusable where `path` leaves the folder or names no file."""
        try:
            found = (self._root / path).resolve()
            inside, there = found.is_relative_to(self._root), found.is_file()
        except (OSError, RuntimeError):
            inside, there = True, False
        if not inside:
            raise Unusable(Reason.PICTURE_OUTSIDE, "image_path: leaves the data folder")
        if not there:
            raise Unusable(Reason.MISSING_PICTURE, "image_path: there is no such file in the data folder")
        return found

    def read(self, path: str) -> bytes:
        """Raises: Unusable."""
        file = self.file(path)
        try:
            if (size := file.stat().st_size) > self._limit:
                raise Unusable(
                    Reason.BAD_PICTURE,
                    f"image_path: {size} bytes; the limit is {self._limit} (MEDMAX_MAX_IMAGE_BYTES)",
                )
            return file.read_bytes()
        except OSError as error:
            raise Unusable(Reason.MISSING_PICTURE, f"image_path: cannot be read: {error.strerror}") from None

    def codes(self, path: str) -> NDArray[np.int64]:
        """Codes of a picture file, int64. Raises: Unusable."""
        found = self.many([path])[path]
        if isinstance(found, Unusable):
            raise found
        return found

    def many(self, paths: Iterable[str]) -> dict[str, NDArray[np.int64] | Unusable]:
        """Codes of each picture, or why there are none; encoded together."""
        found: dict[str, NDArray[np.int64] | Unusable] = {}
        unknown: dict[str, tuple[bytes, str]] = {}
        for path in dict.fromkeys(paths):
            try:
                data = self.read(path)
            except Unusable as trouble:
                found[path] = trouble
                continue
            content = hashlib.sha256(data).hexdigest()
            known = self._cache.get(content) if self._cache else None
            if known is None:
                unknown[path] = data, content
            else:
                found[path] = known
        if not unknown:
            return found
        encoded = self._encoder.codes([data for data, _ in unknown.values()])
        for (path, (_, content)), codes in zip(unknown.items(), encoded, strict=True):
            if isinstance(codes, MedMaxError):
                found[path] = Unusable(Reason.BAD_PICTURE, f"image_path: {codes.message}")
                continue
            found[path] = codes
            if self._cache:
                self._cache.put(content, codes)
        return found

    def close(self) -> None:
        self._encoder.close()
        if self._cache:
            self._cache.close()
