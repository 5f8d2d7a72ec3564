"""`medmax.v1.ImageTokenizer` around `ImageTokenizer`; errors are `MedMaxError`s."""

from __future__ import annotations

from services.config import Settings
from services.deadline import Deadline
from services.pb.medmax.v1 import common_pb2, tokenizer_pb2
from services.tokenizer.tokenizer import ImageTokenizer
from services.tokenizer.window import Window


class ImageTokenizerServicer:
    """Service 1: picture file to image codes."""

    def __init__(self, tokenizer: ImageTokenizer, settings: Settings) -> None:
        self.tokenizer = tokenizer
        self._settings = settings

    @classmethod
    def from_settings(cls, settings: Settings) -> ImageTokenizerServicer:
        """Loads the checkpoint. Raises: CheckpointError."""
        return cls(ImageTokenizer.load(settings), settings)

    async def Tokenize(
        self, request: tokenizer_pb2.TokenizeRequest, context: object = None
    ) -> tokenizer_pb2.TokenizeResponse:
        """See `tokenizer.proto`."""
        deadline = Deadline.after(request.context.timeout_ms, self._settings.request_timeout_s)
        window = Window(request.window.center, request.window.width) if request.HasField("window") else None
        tokens = await self.tokenizer.tokenize(request.image, window, deadline)
        rows, columns = tokens.grid
        return tokenizer_pb2.TokenizeResponse(
            codes=common_pb2.ImageCodes(codes=tokens.codes.tolist(), height=rows, width=columns),
            model=self.model,
            cached=tokens.cached,
            source_format=tokens.format,
            source_width=tokens.width,
            source_height=tokens.height,
            content_sha256=tokens.content_sha256,
        )

    @property
    def model(self) -> common_pb2.ModelVersion:
        """The weights that answer."""
        return common_pb2.ModelVersion(id=self.tokenizer.model_id, digest=self.tokenizer.digest)

    async def check_health(self) -> None:
        """Raises: Unavailable when the tokenizer is closed or stuck."""
        await self.tokenizer.check_health()

    async def close(self) -> None:
        """Finishes what was accepted and releases the threads."""
        await self.tokenizer.close()
