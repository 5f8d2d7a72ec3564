"""What tells whether two pictures, or two texts, are the same: digests of pixels, prints that survive re-encoding, words."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn  # type: ignore[import-untyped]

BITS, THUMB = 256, 32
PRINT_BYTES = BITS // 8 + THUMB * THUMB

# Of 150 phantoms, copies as JPEG of quality 75, enlarged or reduced differed in at most 38 bits and correlated by 0.9975
# or more; different ones of a modality differed in 20 and more, and correlated by 0.990 or less.
NEAR_BITS, NEAR_CORRELATION = 40, 0.995

_WORD = re.compile(r"[^\W_]+")


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """SHA-256, hex, of upright pixels, uint8 [H,W,3] or [H,W,4]: the same for every lossless file of a picture."""
    whole = hashlib.sha256(repr(pixels.shape).encode())
    whole.update(np.ascontiguousarray(pixels).data)
    return whole.hexdigest()


def picture_print(pixels: NDArray[np.uint8]) -> bytes:
    """`BITS` signs of low frequencies (pHash: which are above the median) and a grey thumbnail; uint8 [H,W,3 or 4]."""
    grey = Image.fromarray(pixels[..., :3]).convert("L")
    small = np.asarray(grey.resize((64, 64), Image.Resampling.BOX), np.float32)
    low = dctn(small, norm="ortho")[:16, :16].ravel()
    low[0] = np.median(low[1:])  # mean brightness says nothing of what is shown
    thumb = np.asarray(grey.resize((THUMB, THUMB), Image.Resampling.BOX), np.uint8)
    return np.packbits(low > np.median(low)).tobytes() + thumb.tobytes()


@dataclass
class PrintIndex:
    """Finds pictures near a given one among n; `bits` uint64 [n, BITS / 64], `thumbs` uint8 [n, THUMB²]."""

    bits: NDArray[np.uint64]
    thumbs: NDArray[np.uint8]

    @classmethod
    def of(cls, prints: list[bytes]) -> PrintIndex:
        all_ = np.frombuffer(b"".join(prints), np.uint8).reshape(len(prints), PRINT_BYTES)
        signs = np.ascontiguousarray(all_[:, : BITS // 8]).view(np.uint64)
        return cls(signs, np.ascontiguousarray(all_[:, BITS // 8 :]))

    def near(self, print_: bytes) -> list[int]:
        """Which of the n look the same."""
        signs = np.frombuffer(print_[: BITS // 8], np.uint64)
        away = np.bitwise_count(self.bits ^ signs).sum(axis=1)
        candidates = np.flatnonzero(away <= NEAR_BITS)
        mine = _centred(np.frombuffer(print_[BITS // 8 :], np.uint8))
        return [int(i) for i in candidates if float(mine @ _centred(self.thumbs[i])) >= NEAR_CORRELATION]


def _centred(thumb: NDArray[np.uint8]) -> NDArray[np.float32]:
    values = thumb.astype(np.float32)
    values -= values.mean()
    norm = float(np.linalg.norm(values))
    if norm < 1e-3:  # one colour: like every other of one colour
        values[:] = 1
        norm = float(np.linalg.norm(values))
    return values / np.float32(norm)


def words(text: str) -> list[str]:
    """Letters and digits, case and punctuation aside."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def text_hash(text: str) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def ngrams(text: str, n: int) -> NDArray[np.uint64]:
    """Hashes of every run of `n` words, sorted; of a shorter text the whole's; uint64. Empty for no words."""
    said = words(text)
    if not said:
        return np.zeros(0, np.uint64)
    if len(said) < n:
        return np.array([text_hash(f"whole {' '.join(said)}")], np.uint64)
    return np.unique(
        np.array([text_hash(" ".join(said[i : i + n])) for i in range(len(said) - n + 1)], np.uint64)
    )
