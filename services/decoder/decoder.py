"""Image codes to picture files: VQ-GAN decoder, marks of a synthetic picture, encoding."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from services.checkpoint import open_checkpoint
from services.config import Settings
from services.deadline import Deadline
from services.decoder.files import FileOptions, PictureFile, write_picture
from services.decoder.marking import Origin
from services.decoder.painter import Painter, painter_of
from services.errors import InvalidInput
from services.vqgan import VQConfig

WRITERS = 2
"""Threads that encode files."""


class ImageDecoder:
    """A painter, and the files of its pictures.

    Args:
        config: shape of the VQ-GAN.
        origin: name and digest of the weights, for the files' metadata.
    """

    def __init__(self, painter: Painter, config: VQConfig, *, origin: Origin) -> None:
        self.config = config
        self.origin = origin
        self._painter = painter
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="picture writer")

    @classmethod
    def load(cls, settings: Settings) -> ImageDecoder:
        """From the checkpoint named in the settings. Raises: CheckpointError."""
        checkpoint = open_checkpoint(settings.checkpoint, settings.vqgan)
        return cls(
            painter_of(checkpoint, settings),
            checkpoint.vq_config,
            origin=Origin(settings.model_id, checkpoint.digest),
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Codes of one picture as (rows, columns)."""
        return self.config.grid

    @property
    def n_codes(self) -> int:
        """Size of the codebook."""
        return self.config.n_embed

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
            Unavailable: the decoder is closed, or its Triton server out of reach.
        """
        pixels = await self.pixels(codes, deadline)
        chosen = options or FileOptions()
        file = await asyncio.get_running_loop().run_in_executor(
            self._writers, write_picture, pixels, chosen, self.origin
        )
        if deadline is not None:
            deadline.check()
        return file

    async def pixels(self, codes: NDArray[np.int64], deadline: Deadline | None = None) -> NDArray[np.uint8]:
        """uint8 [S,S,3] of `codes`, without the marks that a file has. Raises: as `decode`."""
        self._check(codes)
        return await self._painter.paint(codes, deadline)

    async def check_health(self) -> None:
        """Raises: Unavailable when closed, stuck or out of reach."""
        await self._painter.check_health()

    async def close(self) -> None:
        """Finishes what was accepted, then releases the threads."""
        await self._painter.close()
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
