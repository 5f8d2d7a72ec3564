"""An item as a task of Label Studio: HTML that experts read, the text that they edit, and what leads back to the item.

Everything from users or models is escaped. A gold item's verdict and the reason why an item is sent stay here.
"""

from __future__ import annotations

import html
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from annotation.core import Item, Kind, Part, Picture
from annotation.labelstudio import sentences
from annotation.labelstudio.templates import Template
from services.errors import InvalidInput

IMAGE = "<image>"
"""Stands in texts where a picture stands, as in the MedMax schema."""
MAX_ALTERNATIVES = 8
MAX_TEXT_CHARS = 200_000
_ROLES = {"user": "Question", "assistant": "Earlier answer", "system": "Set-up"}


@dataclass(frozen=True)
class Task:
    """What is sent to Label Studio for an item. `pictures` are digests in the order of regions' item_index."""

    data: dict[str, Any]
    meta: dict[str, Any]
    result: list[dict[str, Any]] = field(default_factory=list)
    pictures: tuple[str, ...] = ()


def letters(count: int) -> str:
    """Names of alternatives in Label Studio: `abc…`."""
    return string.ascii_lowercase[:count]


def text_of(parts: Iterable[Part]) -> str:
    """The parts as one text, `<image>` for each picture."""
    return "".join(IMAGE if isinstance(part, Picture) else _clean(part) for part in parts)


def shown(item: Item) -> tuple[str, ...]:
    """Digests of the pictures on which an expert marks regions, each once."""
    groups = [item.answer] if item.kind is Kind.PICTURE else [turn.parts for turn in item.dialogue]
    digests = [part.sha256 for parts in groups for part in parts if isinstance(part, Picture)]
    return tuple(dict.fromkeys(digests)) if item.kind in (Kind.PICTURE, Kind.REPORT) else ()


def check(item: Item) -> None:
    """Refuse what cannot be shown.

    Raises:
        InvalidInput: no id, no answer, no picture where one is needed, too few or too many alternatives, too much text.
    """
    if not item.id:
        raise InvalidInput("must not be empty", field="item.id")
    if not item.answer and item.kind is not Kind.PREFERENCE:
        raise InvalidInput("must not be empty", field="item.answer")
    if item.kind in (Kind.PICTURE, Kind.REPORT) and not shown(item):
        where = "answer" if item.kind is Kind.PICTURE else "dialogue"
        raise InvalidInput("needs a picture", field=f"item.{where}")
    if item.kind is Kind.PREFERENCE and not 2 <= len(item.alternatives) <= MAX_ALTERNATIVES:
        raise InvalidInput(f"needs 2 to {MAX_ALTERNATIVES} alternatives", field="item.alternatives")
    groups = (*(turn.parts for turn in item.dialogue), item.answer, *item.alternatives)
    if sum(len(part) for parts in groups for part in parts if isinstance(part, str)) > MAX_TEXT_CHARS:
        raise InvalidInput(f"has more than {MAX_TEXT_CHARS} characters of text", field="item")


def task(item: Item, template: Template, urls: Mapping[str, str]) -> Task:
    """The task of an item.

    Args:
        urls: where the experts' browsers find each picture, by digest.

    Raises:
        InvalidInput: as `check`; or `urls` lacks a picture.
    """
    check(item)
    if any(picture.sha256 not in urls for picture in item.pictures):
        raise InvalidInput("a picture has no address", field="item.pictures")
    pictures = shown(item)
    inline = urls if not pictures else {}
    question = next((text_of(turn.parts) for turn in reversed(item.dialogue) if turn.role == "user"), "")
    data: dict[str, Any] = {
        "item": item.id,
        "question": question.replace(IMAGE, "").strip()[:200],
        "dialogue": "".join(
            _block(_ROLES.get(turn.role, "Turn"), turn.parts, inline, turn.role) for turn in item.dialogue
        ),
    }
    meta: dict[str, Any] = {"item": item.id, "kind": item.kind.value, "version": template.version}
    if pictures:
        data["pictures"] = [urls[digest] for digest in pictures]
        meta["pictures"] = list(pictures)
    if item.kind is Kind.PREFERENCE:
        data |= _alternatives(item, urls)
        meta["alternatives"] = len(item.alternatives)
    elif item.kind is not Kind.PICTURE:
        data["answer"] = _block("Answer to judge", item.answer, inline, "judged")
        data["text"] = text_of(item.answer)
    result = prefilled(item.kind, data)
    template.check_results(result)
    return Task(data, meta, result, pictures)


def _alternatives(item: Item, urls: Mapping[str, str]) -> dict[str, Any]:
    blocks = [
        {
            "id": letter,
            "title": f"Answer {letter.upper()}",
            "html": f'<div class="mm-turn">{_body(parts, urls)}</div>',
        }
        for letter, parts in zip(letters(len(item.alternatives)), item.alternatives, strict=True)
    ]
    first, second = (
        _block(f"Answer {letter}", parts, urls, "judged")
        for letter, parts in zip("AB", item.alternatives, strict=False)
    )
    return {"alternatives": blocks, "first": first, "second": second}


def prefilled(kind: Kind, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the expert finds filled in: the answer's text, ready for editing. Never a decision.

    Args:
        data: a task's; `text` for CHAT and REPORT, `alternatives` for PREFERENCE.
    """
    match kind:
        case Kind.CHAT:
            texts = [data["text"]]
        case Kind.REPORT:
            texts = sentences.split(data["text"])[0]
        case Kind.PREFERENCE:
            form = "pair" if len(data["alternatives"]) == 2 else "rank"
            return [_result("form", "choices", {"choices": [form]})]
        case Kind.PICTURE:
            return []
    return [_result("text", "textarea", {"text": texts})] if any(texts) else []


def _result(name: str, type: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "from_name": name, "to_name": "dialogue", "type": type, "value": value}


def _block(title: str, parts: Iterable[Part], urls: Mapping[str, str], role: str) -> str:
    name = role if role in (*_ROLES, "judged") else "user"
    return f'<div class="mm-turn mm-{name}"><div class="mm-who">{html.escape(title)}</div>{_body(parts, urls)}</div>'


def _body(parts: Iterable[Part], urls: Mapping[str, str]) -> str:
    """Text and pictures in order; a picture without an address is shown beside the text, and only named here."""
    pieces: list[str] = []
    for part in parts:
        if isinstance(part, str):
            pieces.append(html.escape(_clean(part)).replace("\n", "<br>"))
        elif url := urls.get(part.sha256):
            address = html.escape(url)
            pieces.append(f'<a href="{address}" target="_blank"><img class="mm-picture" src="{address}"></a>')
        else:
            pieces.append('<span class="mm-hint">[picture] </span>')
    return "".join(pieces)


def _clean(text: str) -> str:
    """Without what databases and browsers refuse: zero characters and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
