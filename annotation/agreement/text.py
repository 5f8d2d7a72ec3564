"""When two texts say the same."""

from __future__ import annotations

import unicodedata

# Only at the ends of words: "1.5", "-3" and "L4/5" stay what they are. Articles stay too: "hepatitis A".
_OPENING = "\"'`([{“‘«"
_CLOSING = "\"'`)]}”’».,;:!?"


def normalised(text: str) -> str:
    """Case, Unicode form (NFKC), white space and punctuation at the ends of words do not count; anything else does."""
    words = (
        word.lstrip(_OPENING).rstrip(_CLOSING)
        for word in unicodedata.normalize("NFKC", text).casefold().split()
    )
    return " ".join(word for word in words if word)
