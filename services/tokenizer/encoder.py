"""What turns a square of pixels into codes: the VQ-GAN's encoder on torch, or a model at a Triton server."""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from services.batching import Batcher
from services.checkpoint import Checkpoint
from services.config import Device, Settings
from services.deadline import Deadline
from services.errors import ConfigurationError
from services.inference.client import Place, RemoteModel
from services.inference.specs import PIXELS, codes_spec
from services.tokenizer.preprocess import to_input
from services.vqgan import VQGAN, load_vqgan


class Encoder(Protocol):
    """Squares to codes."""

    async def encode(self, square: NDArray[np.uint8]) -> NDArray[np.int32]:
        """uint8 [S,S,3] → int32 [rows·columns], row-major, in [0, codebook size).

        Raises:
            Overloaded: the queue is full.
            Unavailable: closed, or the server is out of reach.
            DeadlineExceeded, ConfigurationError: of a server.
        """

    async def check_health(self) -> None:
        """Raises: Unavailable when closed, stuck or out of reach."""

    async def close(self) -> None:
        """Finishes what was accepted."""


class TorchEncoder:
    """The VQ-GAN behind a queue.

    Args:
        vqgan: with its encoder, on the device to use.
        batch_size: pictures in one batch on a GPU. On a CPU pictures pass one at a time: batches gain little there
            and change the last bits of the latents, so codes would depend on who else is asking.
        max_pending: pictures that may wait; below 0 = no limit.
    """

    def __init__(
        self, vqgan: VQGAN, *, batch_size: int, batch_wait_ms: float, max_pending: int, stuck_after_s: float
    ) -> None:
        self._vqgan = vqgan
        self._device = next(vqgan.parameters()).device
        on_gpu = self._device.type != "cpu"
        self._batcher: Batcher[NDArray[np.uint8], NDArray[np.int32]] = Batcher(
            self._codes,
            name="tokenizer",
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
            load_vqgan(checkpoint, decoder=False, device=settings.device.value),
            batch_size=settings.batch_size,
            batch_wait_ms=settings.batch_wait_ms,
            max_pending=settings.tokenizer.max_queued_requests,
            stuck_after_s=settings.request_timeout_s,
        )

    async def encode(self, square: NDArray[np.uint8]) -> NDArray[np.int32]:
        return await self._batcher.submit(square)

    async def check_health(self) -> None:
        self._batcher.check_health()

    async def close(self) -> None:
        await self._batcher.close()

    def _codes(self, squares: list[NDArray[np.uint8]]) -> list[NDArray[np.int32]]:
        pixels = torch.from_numpy(to_input(squares)).to(self._device)
        codes = self._vqgan.encode(pixels)
        return list(codes.to("cpu", torch.int32).numpy())


class TritonEncoder:
    """The model `MEDMAX_TOKENIZER_TRITON_MODEL` at `MEDMAX_TOKENIZER_TRITON_ADDRESS`; its batches are the server's.

    Args:
        checkpoint: what the server's model must have been made from.
    """

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        self._n_codes = checkpoint.vq_config.n_embed
        self._limit_s = settings.request_timeout_s
        place = Place(
            "tokenizer",
            settings.tokenizer_triton_address,
            settings.tokenizer_triton_model,
            checkpoint.digest,
            settings.tokenizer.max_queued_requests,
        )
        self._model = RemoteModel(place, PIXELS, codes_spec(checkpoint.vq_config), settings)

    async def encode(self, square: NDArray[np.uint8]) -> NDArray[np.int32]:
        codes: NDArray[np.int32] = await self._model.infer(square, Deadline.after(0, self._limit_s))
        if codes.min() < 0 or codes.max() >= self._n_codes:
            raise ConfigurationError(
                f"the model there answers codes outside 0 to {self._n_codes - 1}; it is another checkpoint's",
                field="MEDMAX_TOKENIZER_TRITON_MODEL",
            )
        return codes

    async def check_health(self) -> None:
        await self._model.check_health()

    async def close(self) -> None:
        await self._model.close()


def encoder_of(checkpoint: Checkpoint, settings: Settings) -> Encoder:
    """The one that `MEDMAX_TOKENIZER_BACKEND` names. Raises: CheckpointError."""
    if settings.tokenizer_backend == "triton":
        return TritonEncoder(checkpoint, settings)
    return TorchEncoder.load(checkpoint, settings)
