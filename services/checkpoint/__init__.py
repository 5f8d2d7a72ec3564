"""Checkpoint directories: one in-memory description, whatever the layout on disk."""

from services.checkpoint.config import GenerationDefaults, ModelConfig
from services.checkpoint.reader import Checkpoint, open_checkpoint
from services.checkpoint.vocabulary import Vocabulary, code_name

__all__ = [
    "Checkpoint",
    "GenerationDefaults",
    "ModelConfig",
    "Vocabulary",
    "code_name",
    "open_checkpoint",
]
