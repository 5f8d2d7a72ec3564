"""Checks of records before they are written: training can read them, and their texts identify nobody."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from annotation.dataset.text import END_OF_TURN, PLACEHOLDER
from annotation.dataset.versions import DIGITS, line
from services.errors import InvalidInput
from training.rows.schema import pair_of, row_of
from training.rows.source import MAX_LINE_BYTES
from training.rows.trouble import Reason, Unusable

CheckText = Callable[[str], list[str]]
"""Categories of the identifiers found in a text; none where it identifies nobody."""

_CATEGORY = re.compile(r"[\w.-]{1,40}")
_TEXTS = ("text", "prompt", "chosen", "rejected", "completion")
_NAMED = 20


def readable(file: str, record: dict[str, Any]) -> bytes:
    """The line of a record. Raises: Unusable where training would leave it out."""
    if file == "rows":
        row_of(record)
    elif file == "preferences":
        pair_of(record)
    else:
        row_of(
            {
                "text": f"{record['prompt']}{END_OF_TURN}{record['completion']}",
                "image_path": [*record["image_path"], *record["completion_image_path"]],
            }
        )
    text = line(record)
    if len(text) + DIGITS > MAX_LINE_BYTES:  # the version's name is still to come
        raise Unusable(Reason.LINE_TOO_LONG, "longer than training reads")
    return text


class Identifiers:
    """What `check_text` finds in all records of a build."""

    def __init__(self, check_text: CheckText) -> None:
        self._check_text = check_text
        self._found: set[tuple[str, str]] = set()

    def look(self, interaction: str, record: dict[str, Any]) -> None:
        for field in _TEXTS:
            if said := record.get(field):
                plain = said.replace(END_OF_TURN, "\n").replace(PLACEHOLDER, "\n")
                for category in self._check_text(plain):
                    known = category if _CATEGORY.fullmatch(category) else "identifier"
                    self._found.add((interaction, known))

    def refuse(self) -> None:
        """Raises: InvalidInput naming interactions and categories where something was found."""
        if not self._found:
            return
        found = sorted(self._found)
        some = "; ".join(f"{interaction}: {category}" for interaction, category in found[:_NAMED])
        raise InvalidInput(
            f"what identifies somebody is in texts of {len({interaction for interaction, _ in found})} interactions; "
            f"nothing was written. {some}",
            field="text",
        )
