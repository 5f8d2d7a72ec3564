"""What a data set is made by. A version's manifest records it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from services.errors import InvalidInput


@dataclass(frozen=True)
class Policy:
    """Rules of a build; each checked.

    Attributes:
        name: of the data set, on its card.
        licence: a URL or an SPDX name, on its card and in its metadata.
        consent: a sentence on the card: what patients or institutions agreed to.
        gold: whether items with a known verdict, which measure experts, become rows too.
        validation_share: of patients (of pictures, of items, where nothing else is known), 0 to 0.5.
        salt: another one draws another validation split.
        similar: Jaccard similarity of two questions' 4-character shingles from which they are the same, 0.5 to 1.
        ngram: words in a row that must not be shared with an evaluation set; of shorter texts the whole.
    """

    name: str = "medmax-review"
    licence: str = "not stated"
    consent: str = "Interactions with consent to use as training data alone."
    gold: bool = False
    validation_share: float = 0.05
    salt: str = "medmax"
    similar: float = 0.9
    ngram: int = 13

    def __post_init__(self) -> None:
        for field in ("name", "licence", "consent", "salt"):
            if not 1 <= len(getattr(self, field)) <= 500:
                raise InvalidInput("must have 1 to 500 characters", field=field)
        if not 0 <= self.validation_share <= 0.5:
            raise InvalidInput("must be from 0 to 0.5", field="validation_share")
        if not 0.5 <= self.similar <= 1:
            raise InvalidInput("must be from 0.5 to 1", field="similar")
        if not 2 <= self.ngram <= 100:
            raise InvalidInput("must be from 2 to 100", field="ngram")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
