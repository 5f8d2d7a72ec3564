"""What turns codes into pixels: the VQ-GAN's decoder on torch, or a model at a Triton server."""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from services.batching import Batcher
from services.checkpoint import Checkpoint
from services.config import Device, Settings
from services.deadline import Deadline
from services.inference.client import Place, RemoteModel
from services.inference.specs import codes_spec, picture_spec
from services.vqgan import VQGAN, load_vqgan


class Painter(Protocol):
    """Codes to pixels."""

    async def paint(self, codes: NDArray[np.int64], deadline: Deadline | None = None) -> NDArray[np.uint8]:
        """int64 [rows·columns] in [0, codebook size) → uint8 [S,S,3].

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: `deadline` passed.
            Unavailable: closed, or the server is out of reach.
            ConfigurationError: the server has another model than this one.
        """

    async def check_health(self) -> None:
        """Raises: Unavailable when closed, stuck or out of reach."""

    async def close(self) -> None:
        """Finishes what was accepted."""


class TorchPainter:
    """The VQ-GAN behind a queue.

    Args:
        vqgan: with its decoder, on the device to use.
        batch_size: pictures in one batch on a GPU; on a CPU they pass one at a time (see `TorchEncoder`).
        max_pending: pictures that may wait; below 0 = no limit.
    """

    def __init__(
        self, vqgan: VQGAN, *, batch_size: int, batch_wait_ms: float, max_pending: int, stuck_after_s: float
    ) -> None:
        self._vqgan = vqgan
        self._device = next(vqgan.parameters()).device
        on_gpu = self._device.type != "cpu"
        self._batcher: Batcher[NDArray[np.int64], NDArray[np.uint8]] = Batcher(
            self._pixels,
            name="decoder",
            max_size=batch_size if on_gpu else 1,
            max_wait_s=batch_wait_ms / 1000 if on_gpu else 0,
            max_queue=max_pending,
            stuck_after_s=stuck_after_s,
        )

    @classmethod
    def load(cls, checkpoint: Checkpoint, settings: Settings) -> Self:
        """Raises: CheckpointError."""
        if settings.threads and settings.device is Device.CPU:
            torch.set_num_threads(settings.threads)
        return cls(
            load_vqgan(checkpoint, encoder=False, device=settings.device.value),
            batch_size=settings.batch_size,
            batch_wait_ms=settings.batch_wait_ms,
            max_pending=settings.decoder.max_queued_requests,
            stuck_after_s=settings.request_timeout_s,
        )

    async def paint(self, codes: NDArray[np.int64], deadline: Deadline | None = None) -> NDArray[np.uint8]:
        return await self._batcher.submit(codes, deadline)

    async def check_health(self) -> None:
        self._batcher.check_health()

    async def close(self) -> None:
        await self._batcher.close()

    def _pixels(self, batch: list[NDArray[np.int64]]) -> list[NDArray[np.uint8]]:
        codes = torch.from_numpy(np.stack(batch)).to(self._device)
        pixels = self._vqgan.decode(codes).float().cpu().permute(0, 2, 3, 1).numpy()
        # Cut off, not rounded, as the reference does.
        return list(((pixels + 1) / 2 * 255).astype(np.uint8))


class TritonPainter:
    """The model `MEDMAX_DECODER_TRITON_MODEL` at `MEDMAX_DECODER_TRITON_ADDRESS`; its batches are the server's.

    Args:
        checkpoint: what the server's model must have been made from.
    """

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        self._limit_s = settings.request_timeout_s
        place = Place(
            "decoder",
            settings.decoder_triton_address,
            settings.decoder_triton_model,
            checkpoint.digest,
            settings.decoder.max_queued_requests,
        )
        self._model = RemoteModel(
            place, codes_spec(checkpoint.vq_config), picture_spec(checkpoint.vq_config), settings
        )

    async def paint(self, codes: NDArray[np.int64], deadline: Deadline | None = None) -> NDArray[np.uint8]:
        return await self._model.infer(codes, deadline or Deadline.after(0, self._limit_s))

    async def check_health(self) -> None:
        await self._model.check_health()

    async def close(self) -> None:
        await self._model.close()


def painter_of(checkpoint: Checkpoint, settings: Settings) -> Painter:
    """The one that `MEDMAX_DECODER_BACKEND` names. Raises: CheckpointError."""
    if settings.decoder_backend == "triton":
        return TritonPainter(checkpoint, settings)
    return TorchPainter.load(checkpoint, settings)
