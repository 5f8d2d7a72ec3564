"""Tokenizer and decoder as models of the Open Inference Protocol, over what the gateway calls them by.

tokenizer   FILE BYTES [B,1] or PIXELS UINT8 [B,H,W,3]  →  CODES INT32 [B,N]
decoder     CODES INT32 [B,N]  →  PIXELS UINT8 [B,S,S,3], FILE BYTES [B,1] (PNG)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.deadline import Deadline
from services.decoder.marking import SOURCE_TYPE
from services.errors import InvalidInput
from services.gateway.backends import DecoderBackend, TokenizerBackend
from services.gateway.tasks import all_or_none
from services.inference.messages import Arrays
from services.inference.specs import DIGEST, FILE, PIXELS, ModelSpec
from services.pb.medmax.v1 import common_pb2, decoder_pb2, tokenizer_pb2

PixelDecoder = Callable[[NDArray[np.int64], Deadline], Awaitable[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Outcome:
    """A model's answer: its outputs by name, and what it says of the whole."""

    arrays: Arrays
    parameters: dict[str, str | bool]


class Model(Protocol):
    """One of the two."""

    @property
    def spec(self) -> ModelSpec: ...

    async def infer(self, inputs: Arrays, wanted: Collection[str], context: Any) -> Outcome:
        """The outputs `wanted` for `inputs`, which fit the spec.

        Args:
            context: `RequestContext` of every call behind.

        Raises:
            InvalidInput: names the tensor and the element.
            Overloaded, DeadlineExceeded, Unavailable: as the service's own.
        """

    async def check_health(self) -> None:
        """Raises: Unavailable."""


class TokenizerModel:
    """Pictures to codes."""

    def __init__(self, spec: ModelSpec, backend: TokenizerBackend) -> None:
        self.spec = spec
        self.check_health = backend.check_health
        self._backend = backend

    async def infer(self, inputs: Arrays, wanted: Collection[str], context: Any) -> Outcome:
        if len(inputs) != 1:
            raise InvalidInput("give FILE or PIXELS, one of the two", field="inputs")
        ((name, batch),) = inputs.items()
        if name == PIXELS.name:
            batch = await asyncio.to_thread(_as_files, batch)
        answers = await all_or_none(
            self._tokenize(data, f"inputs[{name}][{place}]", context) for place, data in enumerate(batch.flat)
        )
        codes = np.stack([np.asarray(answer.codes.codes, np.int32) for answer in answers])
        return Outcome({"CODES": codes}, _origin(answers[0].model))

    async def _tokenize(self, data: bytes, name: str, context: Any) -> tokenizer_pb2.TokenizeResponse:
        request = tokenizer_pb2.TokenizeRequest(context=context, image=data)
        try:
            return await self._backend.Tokenize(request)
        except InvalidInput as error:
            raise type(error)(error.message, field=name) from None


class DecoderModel:
    """Codes to pictures.

    Args:
        pixels: a shorter way to a picture's pixels than by its file, where there is one.
    """

    def __init__(
        self,
        spec: ModelSpec,
        backend: DecoderBackend,
        grid: tuple[int, int],
        pixels: PixelDecoder | None = None,
    ) -> None:
        self.spec = spec
        self.check_health = backend.check_health
        self._backend = backend
        self._grid = grid
        self._pixels = pixels

    async def infer(self, inputs: Arrays, wanted: Collection[str], context: Any) -> Outcome:
        batch = inputs["CODES"]
        answers = await all_or_none(
            self._decode(codes, wanted, f"inputs[CODES][{place}]", context)
            for place, codes in enumerate(batch)
        )
        arrays: Arrays = {}
        if PIXELS.name in wanted:
            arrays[PIXELS.name] = np.stack([pixels for pixels, _ in answers if pixels is not None])
        if FILE.name in wanted:
            files = np.empty((len(batch), 1), object)
            files[:, 0] = [file for _, file in answers]
            arrays[FILE.name] = files
        return Outcome(arrays, {"synthetic": True, "digital_source_type": SOURCE_TYPE})

    async def _decode(
        self, codes: NDArray[np.int32], wanted: Collection[str], name: str, context: Any
    ) -> tuple[NDArray[np.uint8] | None, bytes]:
        try:
            if self._pixels is not None and FILE.name not in wanted:
                deadline = Deadline.after(context.timeout_ms, math.inf)
                return await self._pixels(codes.astype(np.int64), deadline), b""
            if codes.min() < 0:
                raise InvalidInput("a code is below 0")
            rows, columns = self._grid
            grid = common_pb2.ImageCodes(codes=codes.tolist(), height=rows, width=columns)
            answer = await self._backend.Decode(decoder_pb2.DecodeRequest(context=context, codes=grid))
        except InvalidInput as error:
            raise type(error)(error.message, field=name) from None
        pixels = await asyncio.to_thread(_read, answer.image) if PIXELS.name in wanted else None
        return pixels, answer.image


def _as_files(batch: NDArray[np.uint8]) -> NDArray[Any]:
    """Pictures [B,H,W,3] as files that lose nothing and cost little, [B]."""
    files = np.empty(len(batch), object)
    for place, pixels in enumerate(batch):
        target = BytesIO()
        Image.fromarray(pixels).save(target, "BMP")
        files[place] = target.getvalue()
    return files


def _read(data: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _origin(model: common_pb2.ModelVersion) -> dict[str, str | bool]:
    return {"model_id": model.id, DIGEST: model.digest}
