"""The whole assistant in one process: no Ray, no network."""

from __future__ import annotations

from services import tracing
from services.checkpoint import open_checkpoint
from services.config import Settings
from services.decoder.servicer import ImageDecoderServicer
from services.gateway.assistant import Assistant
from services.interactions import InteractionStore
from services.llm.servicer import LanguageModelServicer
from services.tokenizer.servicer import ImageTokenizerServicer


def local_assistant(settings: Settings) -> Assistant:
    """An assistant on the services themselves, which it loads and, at the end of `async with`, closes.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        ConfigurationError: an address of the store is wrong.
        Unavailable: the database or the object store is out of reach.
    """
    tracing.configure("assistant")
    return Assistant.from_checkpoint(
        settings,
        open_checkpoint(settings.checkpoint, settings.vqgan),
        ImageTokenizerServicer.from_settings(settings),
        LanguageModelServicer.from_settings(settings),
        ImageDecoderServicer.from_settings(settings),
        InteractionStore.open(settings) if settings.store else None,
    )
