"""Checkpoint directories: one in-memory description, whatever the layout on disk."""

from services.checkpoint.checkpoint import Checkpoint, Layout
from services.checkpoint.config import GenerationDefaults, ModelConfig
from services.checkpoint.reader import open_checkpoint
from services.checkpoint.vocabulary import Vocabulary, code_name

__all__ = [
    "Checkpoint",
    "GenerationDefaults",
    "Layout",
    "ModelConfig",
    "Vocabulary",
    "code_name",
    "open_checkpoint",
]
