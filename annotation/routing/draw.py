"""Keyed hashes in place of random numbers: a restart decides the same, and without the key nobody can steer it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from services.errors import ConfigurationError

MIN_KEY_BYTES = 16
_SCALE = 2.0**-53


class Draws:
    """Uniform numbers in [0, 1), one for each text, of one purpose.

    Args:
        key: secret of the installation; 16 to 64 bytes. With another key other interactions are drawn.
        purpose: at most 16 characters; numbers for different purposes are independent.
    """

    def __init__(self, key: bytes, purpose: str) -> None:
        if not MIN_KEY_BYTES <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ConfigurationError(
                f"must have {MIN_KEY_BYTES} to {hashlib.blake2b.MAX_KEY_SIZE} bytes", field="routing.key"
            )
        self._state = hashlib.blake2b(key=key, digest_size=8, person=purpose.encode())

    def __call__(self, text: str) -> float:
        return float(self.all([text])[0])

    def all(self, texts: Iterable[str]) -> NDArray[np.float64]:
        """One for each."""
        copy, digests = self._state.copy, []
        for text in texts:
            state = copy()
            state.update(text.encode("utf-8", "surrogatepass"))
            digests.append(state.digest())
        return (np.frombuffer(b"".join(digests), dtype=">u8") >> 11).astype(np.float64) * _SCALE
