"""Rows that would be there twice: made from two judgements, of one picture and question. The newest judgement's stays."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from annotation.dataset.staging import Staging
from services.checkpoint.vocabulary import END_OF_TURN, PLACEHOLDER

_NOT_CONTENT = ("provenance", "task", "source", "credential", "learn", "tokens")


def _key(file: str, record: dict[str, Any]) -> bytes:
    """Of two rows with the same question and a text for an answer one is enough; anything else repeats if all is equal."""
    content = {name: value for name, value in record.items() if name not in _NOT_CONTENT}
    if file == "rows":
        asked, _, answer = record["text"].rpartition(END_OF_TURN)
        if PLACEHOLDER not in answer:
            content["text"] = asked
    return hashlib.blake2b(json.dumps([file, content]).encode(), digest_size=8).digest()


def drop_repeats(staging: Staging) -> None:
    """Drop judgements without rows, then rows that a newer judgement makes too. Some 60 bytes a row."""
    for staged in staging.each(where="records = '[]'"):
        reasons = sorted({reason for _, reason in staged.none})
        staging.reject(staged, reasons[0] if reasons else "gives_no_row")
    seen: dict[bytes, str] = {}
    for staged in staging.each("rank DESC, key"):
        left, mine = [], []
        for file, record in staged.records:
            mine.append(_key(file, record))
            if (newer := seen.get(mine[-1])) is None:
                left.append((file, record))
            else:
                rule = record["provenance"]["rule"]
                staging.drop(staged.interaction, staged.kind, rule, "repeated_row", newer)
        seen.update((key, staged.interaction) for key in mine if key not in seen)
        if not left:
            staging.reject(staged, "repeated_row")
        elif len(left) < len(staged.records):
            staging.forget(staged, left)
