"""Rows' `tokens`, written for one model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from training.rows.pictures import Pictures


class Tokenizer(Protocol):
    """Fills `tokens`."""

    def tokens(self, row: Mapping[str, Any], folder: Path) -> list[int]:
        """The whole row as ids; its pictures lie below `folder`. Raises: Unusable, and the row is left out."""


class CheckpointTokenizer:
    """Of a checkpoint directory. Rows longer than its context are refused, as training would leave them out.

    Raises: CheckpointError.
    """

    def __init__(self, checkpoint: Path) -> None:
        from services.checkpoint import open_checkpoint
        from services.config import load

        self._settings = load(checkpoint=checkpoint)
        self._checkpoint = open_checkpoint(checkpoint, self._settings.vqgan)

        self._pictures: Pictures | None = None
        self._folder: Path | None = None

    def tokens(self, row: Mapping[str, Any], folder: Path) -> list[int]:
        from training.rows.pictures import Pictures
        from training.rows.schema import row_of
        from training.rows.sequence import SequenceMaker

        if self._pictures is None or self._folder != folder:
            self.close()
            self._pictures, self._folder = Pictures(folder, self._settings), folder
        checkpoint = self._checkpoint
        maker = SequenceMaker(
            checkpoint.vocabulary, checkpoint.codes_per_image, checkpoint.config.context, self._pictures.codes
        )
        found = row_of(row)
        maker.row(found)  # too long, or without an answer
        return [int(number) for number in maker.tokens(found)]

    def close(self) -> None:
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None
