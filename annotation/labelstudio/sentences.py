"""Reports as sentences that an expert edits one by one, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

# A sentence ends at a full stop, question or exclamation mark before white space, or at a line's end.
# "Dr. X", "e.g. x" and "No. 3" are no ends; decimals have no white space.
_END = re.compile(r"(?<!\bDr)(?<!\bMr)(?<!\bNo)(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<=[.!?])[ \t]+|[ \t]*\n\s*")


def split(text: str) -> tuple[list[str], list[str]]:
    """Sentences, and what stands between them (one fewer). No sentence is empty; `text` is stripped first."""
    sentences: list[str] = []
    joints: list[str] = []
    start, text = 0, text.strip()
    for match in _END.finditer(text):
        sentences.append(text[start : match.start()])
        joints.append(match.group())
        start = match.end()
    if text:
        sentences.append(text[start:])
    return sentences, joints


def join(edited: Sequence[str], original: str) -> str:
    """The edited sentences as one text. Sentences that follow each other in `original` keep what was between them.

    An empty sentence counts as deleted.
    """
    edited = [sentence.strip() for sentence in edited if sentence.strip()]
    sentences, joints = split(original)
    before = ["", *joints]
    gaps = [" "] * len(edited)
    for _, a, a_end, b, b_end in SequenceMatcher(None, sentences, edited, autojunk=False).get_opcodes():
        for old, new in zip(range(a, a_end), range(b, b_end), strict=False):
            gaps[new] = before[old] or " "
    return "".join(gap + sentence for gap, sentence in zip(["", *gaps[1:]], edited, strict=True))
