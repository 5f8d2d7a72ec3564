"""What the gateway must know of the served checkpoint to build prompts: names, sizes, defaults, no weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from services.checkpoint import Checkpoint, GenerationDefaults, Vocabulary
from services.pb.medmax.v1 import common_pb2


@dataclass(frozen=True)
class ServedModel:
    """
    Attributes:
        grid: image codes of a picture as (rows, columns).
        context: positions for prompt and answer together, in tokens.
    """

    vocabulary: Vocabulary
    grid: tuple[int, int]
    generation: GenerationDefaults
    context: int

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> ServedModel:
        return cls(checkpoint.vocabulary, checkpoint.grid, checkpoint.generation, checkpoint.config.context)

    @property
    def span(self) -> int:
        """Tokens of a picture: its codes between begin-of-image and end-of-image."""
        return self.grid[0] * self.grid[1] + 2

    def sampling(self, asked: common_pb2.Sampling) -> common_pb2.Sampling:
        """The values in force: what was asked for, the model's own where nothing was."""
        sampling = common_pb2.Sampling(**asdict(self.generation))
        sampling.MergeFrom(asked)
        return sampling
