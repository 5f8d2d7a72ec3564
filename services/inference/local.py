"""The models over services in this process."""

from __future__ import annotations

from services.config import Settings
from services.decoder.servicer import ImageDecoderServicer
from services.inference.models import DecoderModel, Model, TokenizerModel
from services.inference.specs import DIGEST, ModelSpec
from services.tokenizer.servicer import ImageTokenizerServicer


def local_model(service: ImageTokenizerServicer | ImageDecoderServicer, settings: Settings) -> Model:
    """The model of one service, whose closing stays with its owner."""
    batch = settings.batch_size
    if isinstance(service, ImageTokenizerServicer):
        tokenizer = service.tokenizer
        origin = {"model_id": tokenizer.model_id, DIGEST: tokenizer.digest}
        return TokenizerModel(ModelSpec.tokenizer(tokenizer.config, batch, **origin), service)
    decoder = service.decoder
    origin = {"model_id": decoder.origin.model_id, DIGEST: decoder.origin.digest}
    spec = ModelSpec.decoder(decoder.config, batch, **origin)
    return DecoderModel(spec, service, decoder.grid, decoder.pixels)
