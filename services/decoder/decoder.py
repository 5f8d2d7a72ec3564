"""Image codes to picture files: VQ-GAN decoder, marks of a synthetic picture, encoding."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from services.batching import Batcher
from services.checkpoint import open_checkpoint
from services.config import Device, Settings
from services.deadline import Deadline
from services.decoder.files import FileOptions, PictureFile, write_picture
from services.decoder.marking import Origin
from services.errors import InvalidInput
from services.vqgan import VQGAN, load_vqgan

WRITERS = 2
"""Threads that encode files."""


class ImageDecoder:
    """The VQ-GAN decoder behind a queue.

    Args:
        vqgan: with its decoder, on the device to use.
        origin: name and digest of the weights, for the files' metadata.
        batch_size: pictures in one batch on a GPU; on a CPU they pass one at a time (see `ImageTokenizer`).
        max_pending: pictures that may wait; below 0 = no limit.
    """

    def __init__(
        self,
        vqgan: VQGAN,
        *,
        origin: Origin,
        batch_size: int = 16,
        batch_wait_ms: float = 2,
        max_pending: int = 256,
        stuck_after_s: float = 120,
    ) -> None:
        self.origin = origin
        self._vqgan = vqgan
        self._device = next(vqgan.parameters()).device
        on_gpu = self._device.type != "cpu"
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="picture writer")
        self._batcher: Batcher[NDArray[np.int64], NDArray[np.uint8]] = Batcher(
            self._pixels,
            name="decoder",
            max_size=batch_size if on_gpu else 1,
            max_wait_s=batch_wait_ms / 1000 if on_gpu else 0,
            max_queue=max_pending,
            stuck_after_s=stuck_after_s,
        )

    @classmethod
    def load(cls, settings: Settings) -> ImageDecoder:
        """From the checkpoint named in the settings. Raises: CheckpointError."""
        checkpoint = open_checkpoint(settings.checkpoint, settings.vqgan)
        if settings.threads and settings.device is Device.CPU:
            torch.set_num_threads(settings.threads)
        return cls(
            load_vqgan(checkpoint, encoder=False, device=settings.device.value),
            origin=Origin(settings.model_id, checkpoint.digest),
            batch_size=settings.batch_size,
            batch_wait_ms=settings.batch_wait_ms,
            max_pending=settings.decoder.max_queued_requests,
            stuck_after_s=settings.request_timeout_s,
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Codes of one picture as (rows, columns)."""
        return self._vqgan.config.grid

    @property
    def n_codes(self) -> int:
        """Size of the codebook."""
        return self._vqgan.config.n_embed

    async def decode(
        self,
        codes: NDArray[np.int64],
        options: FileOptions | None = None,
        deadline: Deadline | None = None,
    ) -> PictureFile:
        """Picture file of `codes` [rows·columns], row-major.

        Raises:
            InvalidInput: wrong number of codes, or one outside the codebook.
            Overloaded: the queue is full.
            DeadlineExceeded: `deadline` passed.
            Unavailable: the decoder is closed.
        """
        self._check(codes)
        pixels = await self._batcher.submit(codes, deadline)
        chosen = options or FileOptions()
        file = await asyncio.get_running_loop().run_in_executor(
            self._writers, write_picture, pixels, chosen, self.origin
        )
        if deadline is not None:
            deadline.check()
        return file

    async def check_health(self) -> None:
        """Raises: Unavailable when closed or stuck."""
        self._batcher.check_health()

    async def close(self) -> None:
        """Finishes what was accepted, then releases the threads."""
        await self._batcher.close()
        self._writers.shutdown(wait=False)

    def _check(self, codes: NDArray[np.int64]) -> None:
        rows, columns = self.grid
        if codes.shape != (rows * columns,):
            raise InvalidInput(
                f"{codes.size} codes; a picture has {rows} x {columns} = {rows * columns}",
                field="codes.codes",
            )
        if codes.min() < 0 or codes.max() >= self.n_codes:
            raise InvalidInput(f"a code is outside 0 to {self.n_codes - 1}", field="codes.codes")

    def _pixels(self, batch: list[NDArray[np.int64]]) -> list[NDArray[np.uint8]]:
        codes = torch.from_numpy(np.stack(batch)).to(self._device)
        pixels = self._vqgan.decode(codes).float().cpu().permute(0, 2, 3, 1).numpy()
        # Cut off, not rounded, as the reference does.
        return list(((pixels + 1) / 2 * 255).astype(np.uint8))
