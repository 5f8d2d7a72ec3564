"""`medmax.v1.ImageDecoder` around `ImageDecoder`; errors are `MedMaxError`s."""

from __future__ import annotations

import numpy as np

from services.config import Settings
from services.deadline import Deadline
from services.decoder.decoder import ImageDecoder
from services.decoder.files import FileOptions, Format
from services.errors import InvalidInput
from services.pb.medmax.v1 import common_pb2, decoder_pb2

FORMATS: dict[int, Format] = {
    common_pb2.IMAGE_FORMAT_UNSPECIFIED: Format.PNG,
    common_pb2.IMAGE_FORMAT_PNG: Format.PNG,
    common_pb2.IMAGE_FORMAT_JPEG: Format.JPEG,
    common_pb2.IMAGE_FORMAT_WEBP: Format.WEBP,
}


class ImageDecoderServicer:
    """Service 3: image codes to a picture file."""

    def __init__(self, decoder: ImageDecoder, settings: Settings) -> None:
        self.decoder = decoder
        self._settings = settings

    @classmethod
    def from_settings(cls, settings: Settings) -> ImageDecoderServicer:
        """Loads the checkpoint. Raises: CheckpointError."""
        return cls(ImageDecoder.load(settings), settings)

    async def Decode(
        self, request: decoder_pb2.DecodeRequest, context: object = None
    ) -> decoder_pb2.DecodeResponse:
        """See `decoder.proto`."""
        deadline = Deadline.after(request.context.timeout_ms, self._settings.request_timeout_s)
        self._check_grid(request.codes)
        options = _options(request)
        codes = np.asarray(request.codes.codes, np.int64)
        file = await self.decoder.decode(codes, options, deadline)
        return decoder_pb2.DecodeResponse(
            image=file.data,
            mime_type=file.mime_type,
            width=file.width,
            height=file.height,
            model=self.model,
        )

    @property
    def model(self) -> common_pb2.ModelVersion:
        """The weights that answer."""
        origin = self.decoder.origin
        return common_pb2.ModelVersion(id=origin.model_id, digest=origin.digest)

    async def check_health(self) -> None:
        """Raises: Unavailable when the decoder is closed or stuck."""
        await self.decoder.check_health()

    async def close(self) -> None:
        """Finishes what was accepted and releases the threads."""
        await self.decoder.close()

    def _check_grid(self, codes: common_pb2.ImageCodes) -> None:
        rows, columns = self.decoder.grid
        for name, given, expected in (("height", codes.height, rows), ("width", codes.width, columns)):
            if given != expected:
                raise InvalidInput(f"{given}; must be {expected}", field=f"codes.{name}")


def _options(request: decoder_pb2.DecodeRequest) -> FileOptions:
    if request.format not in FORMATS:
        raise InvalidInput(f"{request.format}; must be PNG (1), JPEG (2) or WEBP (3)", field="format")
    return FileOptions(
        format=FORMATS[request.format],
        quality=request.quality if request.HasField("quality") else None,
        visible_mark=request.visible_mark,
        size=request.size if request.HasField("size") else None,
    )
