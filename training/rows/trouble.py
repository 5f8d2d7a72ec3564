"""Rows that cannot be used: why, how many and where."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

_NAMED = 20


class Reason(StrEnum):
    """Why a row is left out."""

    LINE_TOO_LONG = "line_too_long"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    BAD_FIELD = "bad_field"
    NEEDS_CREDENTIAL = "needs_credential"
    NO_END_OF_TURN = "no_end_of_turn"
    NO_ANSWER = "no_answer"
    TOO_LONG = "too_long"
    PICTURES_DISAGREE = "pictures_disagree"
    MISSING_PICTURE = "missing_picture"
    PICTURE_OUTSIDE = "picture_outside"
    BAD_PICTURE = "bad_picture"
    CODE_OUT_OF_RANGE = "code_out_of_range"
    SPAN_NOT_WHOLE = "span_not_whole"
    OTHER_VOCABULARY = "other_vocabulary"


FOREIGN = frozenset({Reason.CODE_OUT_OF_RANGE, Reason.SPAN_NOT_WHOLE, Reason.OTHER_VOCABULARY})
"""What `tokens` that were written for another model look like."""


class Unusable(Exception):
    """A row cannot be used. The message names the field and the limit, and repeats nothing of the row."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass
class Skipped:
    """The rows left out of one data set, by reason. `rows` are (place, reason, message); a place is `file:line`."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, place: str, trouble: Unusable) -> None:
        self.rows.append((place, str(trouble.reason), trouble.message))

    @property
    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(reason for _, reason, _ in self.rows).items()))

    @property
    def foreign(self) -> int:
        """How many look like `tokens` of another vocabulary."""
        return sum(reason in FOREIGN for _, reason, _ in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Counts, and of every reason the first places with what is wrong there."""
        named: dict[str, list[dict[str, str]]] = {}
        for place, reason, message in self.rows:
            if len(named.setdefault(reason, [])) < _NAMED:
                named[reason].append({"row": place, "message": message})
        return {reason: {"count": count, "first": named[reason]} for reason, count in self.counts.items()}

    def write(self, path: Path) -> None:
        """Every one of them, one JSON a line."""
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            for place, reason, message in self.rows:
                file.write(json.dumps({"row": place, "reason": reason, "message": message}) + "\n")
        os.replace(partial, path)

    @classmethod
    def read(cls, path: Path) -> Skipped:
        with path.open(encoding="utf-8") as file:
            found = [json.loads(line) for line in file]
        return cls([(item["row"], item["reason"], item["message"]) for item in found])
