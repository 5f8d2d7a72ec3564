"""Gold items from a file: tasks whose right verdict is known, which tell who is reliable.

One JSON object a line:

{"id": "effusion-1", "kind": "chat", "dialogue": [{"role": "user", "parts": [{"picture": "film.png"}, "Which side?"]}],
 "answer": ["The left side."], "verdict": {"decision": "reject", "error": "wrong_attribute", "severity": "major"}}
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from annotation.core import Decision, Item, Kind, Part, Picture, Reason, Severity, Turn, Verdict
from annotation.loop.settings import Name
from services.config import Settings
from services.errors import InvalidInput

MAX_LINE_BYTES, MAX_ITEMS = 1 << 20, 10_000
Text = Annotated[str, Field(min_length=1, max_length=20_000)]
Stars = Annotated[int, Field(ge=1, le=5)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _PictureFile(_Strict):
    """picture: a file; a relative path is one from the folder of the list."""

    picture: Annotated[str, Field(min_length=1, max_length=4096)]
    synthetic: bool = False


_Parts = Annotated[tuple[Text | _PictureFile, ...], Field(min_length=1, max_length=32)]


class _Turn(_Strict):
    role: Literal["system", "user", "assistant"]
    parts: _Parts


class _Verdict(_Strict):
    """Without regions: experts draw them too differently to be measured by them."""

    decision: Decision | None = None
    text: Text | None = None
    error: str = Field("", pattern=r"^[a-z_]{0,64}$")
    severity: Severity = Severity.NONE
    missing: tuple[Text, ...] = Field((), max_length=64)
    realism: Stars | None = None
    agreement: Stars | None = None
    ranking: tuple[int, ...] = Field((), max_length=8)


class _Gold(_Strict):
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")]
    kind: Kind
    dialogue: Annotated[tuple[_Turn, ...], Field(min_length=1, max_length=64)]
    answer: _Parts
    alternatives: Annotated[tuple[_Parts, ...], Field(max_length=8)] = ()
    verdict: _Verdict
    task: str = Field("vqa", pattern=r"^[a-z_]{1,32}$")
    modality: str = Field("", pattern=r"^[a-z0-9_]{0,64}$")
    speciality: Name = "general"

    @model_validator(mode="after")
    def _whole(self) -> _Gold:
        verdict, ranked = self.verdict, self.kind is Kind.PREFERENCE
        if ranked and (
            len(self.alternatives) < 2 or sorted(verdict.ranking) != list(range(len(self.alternatives)))
        ):
            raise ValueError(
                "a preference has 2 to 8 alternatives and a ranking with each number, from 0, once"
            )
        if ranked != (verdict.decision is None):
            raise ValueError("every kind but preference has a decision")
        if (verdict.text is not None) != (verdict.decision is Decision.EDIT):
            raise ValueError("an edit, and nothing else, has a text")
        if (self.kind is Kind.PICTURE) != (verdict.realism is not None and verdict.agreement is not None):
            raise ValueError("a picture, and nothing else, has realism and agreement")
        return self


def read(path: Path, base: Settings) -> Iterator[tuple[int, Item]]:
    """The items of a file with the number of their lines, not yet de-identified.

    Raises:
        InvalidInput: names the line, the field and the limit.
    """
    seen: set[tuple[str, Kind]] = set()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
                if len(line) > MAX_LINE_BYTES:
                    raise InvalidInput("must not exceed 1 MiB", field=f"line {number}")
                if not line.strip():
                    continue
                made = _parsed(line, number)
                if (made.id, made.kind) in seen:
                    raise InvalidInput("this id and kind come twice", field=f"line {number}: id")
                seen.add((made.id, made.kind))
                if len(seen) > MAX_ITEMS:
                    raise InvalidInput(f"more than {MAX_ITEMS:,} items", field=f"line {number}")
                yield number, _item(made, path.parent, base.max_image_bytes, number)
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", field="file") from None


def _parsed(line: bytes, number: int) -> _Gold:
    try:
        return _Gold.model_validate_json(line)
    except ValidationError as error:
        # Neither the value nor the rest: they may name a patient.
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(first["msg"].partition(" at line")[0], field=f"line {number}: {where}") from None


def _item(made: _Gold, folder: Path, limit: int, number: int) -> Item:
    def parts(given: tuple[Any, ...]) -> tuple[Part, ...]:
        return tuple(
            part if isinstance(part, str) else _picture(folder / part.picture, part.synthetic, limit, number)
            for part in given
        )

    return Item(
        id=made.id,
        kind=made.kind,
        dialogue=tuple(Turn(turn.role, parts(turn.parts)) for turn in made.dialogue),
        answer=parts(made.answer),
        alternatives=tuple(parts(each) for each in made.alternatives),
        task=made.task,
        modality=made.modality,
        speciality=made.speciality,
        reason=Reason.GOLD,
        gold=Verdict(**{name: getattr(made.verdict, name) for name in _Verdict.model_fields}),
    )


def _picture(path: Path, synthetic: bool, limit: int, number: int) -> Picture:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise InvalidInput(
            f"a picture cannot be read: {error.strerror}", field=f"line {number}: picture"
        ) from None
    if len(data) > limit:
        raise InvalidInput(f"a picture of more than {limit} bytes", field=f"line {number}: picture")
    return Picture(hashlib.sha256(data).hexdigest(), data, synthetic)
