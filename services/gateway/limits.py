"""Limits of a request that no setting changes, each with the sentence that tells a caller about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from services.errors import InvalidInput

MAX_MESSAGES = 64
MAX_PARTS = 64  # of one message
MAX_INPUT_IMAGES = 16
MAX_OUTPUT_IMAGES = 16
MAX_NEW_TOKENS = 65_536
MAX_STOP = 4
MAX_STOP_CHARS = 64
MAX_TOP_LOGPROBS = 20
MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Range:
    """The numbers `low` to `high`; without `low` itself where `above` is set."""

    low: float
    high: float
    above: bool = False

    def __str__(self) -> str:
        return f"{'more than' if self.above else 'from'} {self.low:,} {'up ' if self.above else ''}to {self.high:,}"

    def check(self, value: float, field: str) -> None:
        """Raises: InvalidInput for a value outside, or NaN."""
        inside = math.isfinite(value) and (self.low < value if self.above else self.low <= value)
        if not inside or value > self.high:
            raise InvalidInput(f"must be a number {self}", field=field)

    @property
    def schema(self) -> dict[str, Any]:
        """Keyword arguments of `pydantic.Field` that say the same."""
        return {"gt" if self.above else "ge": self.low, "le": self.high}


TEMPERATURE = Range(0, 2)
NUCLEUS = Range(0, 1, above=True)
GUIDANCE = Range(0, 20)
IMAGE_SIZE = Range(16, 2048)

# Field of `medmax.v1.Sampling` → its range.
SAMPLING = {
    "temperature": TEMPERATURE,
    "top_p": NUCLEUS,
    "top_k": Range(0, 65_536),
    "repetition_penalty": Range(0.5, 5),
    "image_temperature": TEMPERATURE,
    "image_top_p": NUCLEUS,
    "guidance_text": GUIDANCE,
    "guidance_image": GUIDANCE,
}
