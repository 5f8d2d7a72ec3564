"""Pictures to image codes: reading, preprocessing, VQ-GAN encoder, cache."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.checkpoint import open_checkpoint
from services.config import Settings
from services.deadline import Deadline
from services.errors import DeadlineExceeded, Overloaded, Unavailable
from services.tokenizer.cache import ByteCache
from services.tokenizer.encoder import Encoder, encoder_of
from services.tokenizer.limits import Limits
from services.tokenizer.pictures import read_picture
from services.tokenizer.preprocess import to_square
from services.tokenizer.window import Window
from services.vqgan import VQConfig

READERS = 2
"""Threads that decode pictures; each may take some 16 bytes per pixel of the pixel limit."""
INLINE_HASH_BYTES = 1 << 18
ENTRY_BYTES = 512
"""Of a cache entry, beyond its codes."""

Key = tuple[str, str, Window | None]


@dataclass(frozen=True)
class Tokens:
    """Codes of one picture.

    Attributes:
        codes: int32 [rows·columns], row-major, in [0, codebook size).
        format, width, height: of the source; pixels after orientation.
        content_sha256: of the source's bytes, hex.
        cached: answered from the cache.
    """

    codes: NDArray[np.int32]
    grid: tuple[int, int]
    format: str
    width: int
    height: int
    content_sha256: str
    cached: bool = False


@dataclass
class _Shared:
    task: asyncio.Task[Tokens]
    callers: int = 0


class ImageTokenizer:
    """An encoder behind a cache.

    Requests for the same bytes and window that overlap in time are worked on once.

    Args:
        config: shape of the VQ-GAN.
        model_id, digest: name and SHA-256 of the weights.
        max_pending: pictures that may be at work or waiting; below 0 = no limit.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: VQConfig,
        *,
        model_id: str,
        digest: str,
        limits: Limits,
        cache_bytes: int = 64 << 20,
        max_pending: int = 256,
    ) -> None:
        self.config = config
        self.model_id = model_id
        self.digest = digest
        self.limits = limits
        self._encoder = encoder
        self._max_pending = max_pending
        self._cache: ByteCache[Key, Tokens] = ByteCache(cache_bytes)
        self._shared: dict[Key, _Shared] = {}
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="picture reader")
        self._closed = False

    @classmethod
    def load(cls, settings: Settings) -> ImageTokenizer:
        """From the checkpoint named in the settings. Raises: CheckpointError."""
        checkpoint = open_checkpoint(settings.checkpoint, settings.vqgan)
        return cls(
            encoder_of(checkpoint, settings),
            checkpoint.vq_config,
            model_id=settings.model_id,
            digest=checkpoint.digest,
            limits=Limits.from_settings(settings),
            cache_bytes=settings.tokenizer_cache_bytes,
            max_pending=settings.tokenizer.max_queued_requests,
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Codes of one picture as (rows, columns)."""
        return self.config.grid

    async def tokenize(
        self, data: bytes, window: Window | None = None, deadline: Deadline | None = None
    ) -> Tokens:
        """Codes of the picture file `data`.

        Args:
            window: display window for DICOM and deep grey pictures, in place of the file's own.

        Raises:
            InvalidImage, PayloadTooLarge, InvalidInput: the caller's; see `read_picture`.
            Overloaded: too many pictures at once.
            DeadlineExceeded: `deadline` passed.
            Unavailable: the tokenizer is closed, or its Triton server out of reach.
        """
        if self._closed:
            raise Unavailable("the tokenizer is shutting down", retry_after_s=1)
        self.limits.check_bytes(data)
        content = await _sha256(data)
        key = (content, self.digest, window)
        if (tokens := self._cache.get(key)) is not None:
            return replace(tokens, cached=True)
        return await self._join(key, lambda: self._tokenize(key, data), deadline)

    async def check_health(self) -> None:
        """Raises: Unavailable when closed, stuck or out of reach."""
        await self._encoder.check_health()

    async def close(self) -> None:
        """Finishes what was accepted, then releases the threads and the cache's memory."""
        self._closed = True
        if running := [shared.task for shared in self._shared.values()]:
            await asyncio.wait(running)
        await self._encoder.close()
        self._readers.shutdown(wait=False)

    async def _join(
        self, key: Key, start: Callable[[], Coroutine[Any, Any, Tokens]], deadline: Deadline | None
    ) -> Tokens:
        shared = self._shared.get(key)
        if shared is None or shared.task.get_loop() is not asyncio.get_running_loop():
            if 0 <= self._max_pending <= len(self._shared):
                raise Overloaded(
                    f"{len(self._shared)} pictures at once; the limit is {self._max_pending}", retry_after_s=1
                )
            shared = self._shared[key] = _Shared(asyncio.create_task(start()))
        shared.callers += 1
        limit = asyncio.timeout(None if deadline is None else deadline.remaining_s)
        try:
            async with limit:
                return await asyncio.shield(shared.task)
        except TimeoutError:
            if limit.expired():
                raise DeadlineExceeded("the request's time ran out", field="context.timeout_ms") from None
            raise
        finally:
            shared.callers -= 1
            if not shared.callers:
                # Out of the table first: nobody may join a task that is being cancelled.
                if self._shared.get(key) is shared:
                    del self._shared[key]
                shared.task.cancel()

    async def _tokenize(self, key: Key, data: bytes) -> Tokens:
        content, _, window = key
        loop = asyncio.get_running_loop()
        square, source = await loop.run_in_executor(self._readers, self._read, data, window)
        codes = await self._encoder.encode(square)
        tokens = Tokens(codes, self.grid, *source, content)
        self._cache.put(key, tokens, codes.nbytes + ENTRY_BYTES)
        return tokens

    def _read(self, data: bytes, window: Window | None) -> tuple[NDArray[np.uint8], tuple[str, int, int]]:
        picture = read_picture(data, self.limits, window)
        square = to_square(picture.pixels, self.config.resolution)
        return square, (picture.format, picture.width, picture.height)


async def _sha256(data: bytes) -> str:
    if len(data) <= INLINE_HASH_BYTES:
        return hashlib.sha256(data).hexdigest()
    digest = await asyncio.to_thread(hashlib.sha256, data)
    return digest.hexdigest()
