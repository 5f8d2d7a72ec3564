"""What a row or a pair says, every field checked. Fields that nobody knows are ignored.

Row:  {"text", "tokens", "image_path", "task", "source", "credential"}          MedMax's schema
Pair: {"prompt", "chosen", "rejected", "image_path", "chosen_image_path", "rejected_image_path"}

`text` and `prompt` hold turns with `<reserved08706>` (end of turn) between them and `<image>` for each picture;
`image_path` is one path, or a list in the order of the placeholders. A row with `tokens` is learnt from them, one with
`image_tokens` (`img_tokens`; codes, a list for each picture) needs no picture. Of a row with `"learn": "last"` the last
answer alone is learnt: what was answered before it was not judged. One with `"learn": "keep"` teaches to answer as the
base does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.checkpoint.vocabulary import END_OF_TURN
from training.rows.trouble import Reason, Unusable

IMAGE = "<image>"
MAX_TEXT_CHARS = 1_000_000
MAX_PICTURES = 64
_NO = {"", "no", "none", "false", "0", "n/a"}


@dataclass(frozen=True)
class Row:
    """An instruction row: `tokens` int64 [n], or `text` with pictures by path or by codes (int64 [n] each).

    `last_only`: the last answer alone is learnt. `keep`: the base's own probabilities are learnt in place of the answers.
    """

    text: str | None
    tokens: NDArray[np.int64] | None
    paths: tuple[str, ...]
    codes: tuple[NDArray[np.int64], ...] | None
    last_only: bool = False
    keep: bool = False


@dataclass(frozen=True)
class Pair:
    """A prompt, the answer that experts prefer, and the other one."""

    prompt: Row
    chosen: Row
    rejected: Row


def row_of(record: Mapping[str, Any]) -> Row:
    """Raises: Unusable naming the field."""
    text = _text(record, "text")
    tokens = None if record.get("tokens") is None else _integers(record["tokens"], "tokens")
    paths, codes = _paths(record, "image_path"), _codes(record)
    if tokens is None:
        wants = 0 if text is None else text.count(IMAGE)
        if _needs_credential(record) and (text is None or wants > len(paths)) and codes is None:
            raise Unusable(
                Reason.NEEDS_CREDENTIAL, "credential: the source gives its data to registered users only"
            )
        if text is None:
            raise Unusable(Reason.BAD_FIELD, "text: missing, and so is tokens")
        _check_pictures(wants, paths, codes, "image_path")
        if END_OF_TURN not in text:
            raise Unusable(
                Reason.NO_END_OF_TURN,
                f"text: holds no {END_OF_TURN}, so nothing says where the answer begins",
            )
    if (learn := record.get("learn")) not in (None, "all", "last", "keep"):
        raise Unusable(Reason.BAD_FIELD, "learn: must be all, last or keep")
    return Row(text, tokens, paths, codes, last_only=learn == "last", keep=learn == "keep")


def pair_of(record: Mapping[str, Any]) -> Pair:
    """Raises: Unusable naming the field."""
    parts = []
    for name, pictures in (
        ("prompt", "image_path"),
        ("chosen", "chosen_image_path"),
        ("rejected", "rejected_image_path"),
    ):
        text = _text(record, name)
        if not text:
            raise Unusable(Reason.BAD_FIELD, f"{name}: missing or empty")
        paths = _paths(record, pictures)
        _check_pictures(text.count(IMAGE), paths, None, pictures)
        parts.append(Row(text, None, paths, None))
    if END_OF_TURN in f"{parts[1].text}{parts[2].text}":
        raise Unusable(Reason.BAD_FIELD, f"chosen, rejected: must be one answer each, without {END_OF_TURN}")
    if (parts[1].text, parts[1].paths) == (parts[2].text, parts[2].paths):
        raise Unusable(Reason.BAD_FIELD, "chosen, rejected: are the same")
    return Pair(*parts)


def _text(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Unusable(Reason.BAD_FIELD, f"{name}: must be a string")
    if len(value) > MAX_TEXT_CHARS:
        raise Unusable(Reason.BAD_FIELD, f"{name}: {len(value)} characters; the limit is {MAX_TEXT_CHARS}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unusable(Reason.BAD_FIELD, f"{name}: holds half of a character") from None
    return value


def _paths(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = record.get(name)
    if value is None or value == "":
        return ()
    paths = value if isinstance(value, list) else [value]
    if not all(isinstance(path, str) and path and "\0" not in path for path in paths):
        raise Unusable(Reason.BAD_FIELD, f"{name}: must be a path or a list of paths")
    if len(paths) > MAX_PICTURES:
        raise Unusable(Reason.BAD_FIELD, f"{name}: {len(paths)} pictures; the limit is {MAX_PICTURES}")
    return tuple(paths)


def _codes(record: Mapping[str, Any]) -> tuple[NDArray[np.int64], ...] | None:
    name = "image_tokens" if record.get("image_tokens") is not None else "img_tokens"
    value = record.get(name)
    if not isinstance(value, list):
        if value is not None:
            raise Unusable(Reason.BAD_FIELD, f"{name}: must be a list of whole numbers")
        return None
    if value and all(isinstance(item, list) for item in value):
        return tuple(_integers(item, name) for item in value)
    return (_integers(value, name),)


def _integers(value: Any, name: str) -> NDArray[np.int64]:
    if not isinstance(value, list) or not value or set(map(type, value)) != {int}:
        raise Unusable(Reason.BAD_FIELD, f"{name}: must be a list of whole numbers")
    try:
        return np.array(value, np.int64)
    except OverflowError:
        raise Unusable(Reason.OTHER_VOCABULARY, f"{name}: holds a number of more than 64 bits") from None


def _check_pictures(
    wanted: int, paths: tuple[str, ...], codes: tuple[NDArray[np.int64], ...] | None, name: str
) -> None:
    given = len(paths) if codes is None else len(codes)
    if wanted and not given:
        raise Unusable(Reason.MISSING_PICTURE, f"{name}: missing, and the text has {wanted} {IMAGE}")
    if wanted != given:
        raise Unusable(Reason.PICTURES_DISAGREE, f"{name}: {given} pictures for {wanted} {IMAGE} in the text")


def _needs_credential(record: Mapping[str, Any]) -> bool:
    value = record.get("credential")
    if isinstance(value, str):
        return value.strip().lower() not in _NO
    if value is not None and not isinstance(value, bool | int | float):
        raise Unusable(Reason.BAD_FIELD, "credential: must be a truth value or a string")
    return bool(value)
