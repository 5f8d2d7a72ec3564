"""Labelling configurations: one XML file per kind of item, with its version and digest.

The version stands in the root's class (`mm-chat-v1`); whoever changes what a control asks raises it. `style.css`
takes the place of an empty `<Style/>`, so that all kinds look alike.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from annotation.core import Kind
from services.errors import ConfigurationError, InvalidInput

FOLDER = Path(__file__).parent / "configs"
_OBJECTS = {"HyperText", "Image", "List"}
_TYPES = {
    "Choices": "choices",
    "TextArea": "textarea",
    "Rating": "rating",
    "Pairwise": "pairwise",
    "Ranker": "ranker",
    "Labels": "labels",
    "Rectangle": "rectangle",
    "Brush": "brush",
}


@dataclass(frozen=True)
class Control:
    """Something that an expert fills in.

    Attributes:
        type: as results name it (`choices`, `textarea`, …).
        to: the objects it is about.
        values: what may be chosen, as results hold it; empty where anything may.
        limit: the most entries (TextArea) or the highest value (Rating); None where there is none.
    """

    type: str
    to: tuple[str, ...]
    values: frozenset[str] = frozenset()
    limit: int | None = None


@dataclass(frozen=True)
class Template:
    """A labelling configuration as it is sent to Label Studio."""

    kind: Kind
    version: int
    xml: str

    @property
    def digest(self) -> str:
        return digest(self.xml)

    @cached_property
    def controls(self) -> Mapping[str, Control]:
        """By name."""
        root = ElementTree.fromstring(self.xml)
        return {element.attrib["name"]: _control(element) for element in root.iter() if element.tag in _TYPES}

    @cached_property
    def fields(self) -> frozenset[str]:
        """What a task's data must hold."""
        root = ElementTree.fromstring(self.xml)
        values = (element.get("value") or element.get("valueList") or "" for element in root.iter())
        return frozenset(value[1:] for value in values if value.startswith("$"))

    def check_results(self, results: list[dict[str, Any]]) -> None:
        """Refuse results that the editor could not show; for what we prefill.

        Raises:
            InvalidInput: a control, an object, a type or a value that this configuration does not have. The message
                names the control, never the value.
        """
        for index, result in enumerate(results):
            where = f"result[{index}]"
            control = self.controls.get(result.get("from_name", ""))
            if control is None:
                raise InvalidInput("no such control", field=f"{where}.from_name")
            if result.get("to_name") not in control.to:
                raise InvalidInput("the control is not about this object", field=f"{where}.to_name")
            if result.get("type") != control.type:
                raise InvalidInput(f"the control's results are of type {control.type}", field=f"{where}.type")
            if not _fits(control, result.get("value")):
                raise InvalidInput(f"is no value of a control of type {control.type}", field=f"{where}.value")


def _control(element: ElementTree.Element) -> Control:
    limit = element.get("maxSubmissions") or element.get("maxRating")
    return Control(
        _TYPES[element.tag],
        tuple(element.attrib["toName"].split(",")),
        frozenset(child.get("alias") or child.attrib["value"] for child in element),
        int(limit) if limit else None,
    )


def _fits(control: Control, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    match control.type:
        case "choices":
            chosen = value.get("choices")
            return isinstance(chosen, list) and bool(chosen) and control.values.issuperset(chosen)
        case "textarea":
            texts = value.get("text")
            few = isinstance(texts, list) and 0 < len(texts) <= (control.limit or len(texts))
            return few and all(isinstance(text, str) for text in texts)
        case "rating":
            return value.get("rating") in range(1, (control.limit or 5) + 1)
    # What marks regions or ranks is the experts' alone: nothing of that kind is prefilled.
    return False


def digest(xml: str) -> str:
    """SHA-256, hex, of what the configuration means: white space between tags and attributes' order do not count."""
    try:
        canonical = ElementTree.canonicalize(xml, strip_text=True)
    except ElementTree.ParseError:
        canonical = xml
    return hashlib.sha256(canonical.encode()).hexdigest()


def load(kind: Kind, folder: Path = FOLDER) -> Template:
    """The configuration of this kind.

    Raises:
        ConfigurationError: no such file, no XML, or no version in it.
    """
    path = folder / f"{kind.value}.xml"
    try:
        root = ElementTree.fromstring(path.read_text())
        style = (folder / "style.css").read_text()
    except (OSError, ElementTree.ParseError) as error:
        raise ConfigurationError(
            f"{path.name} cannot be read: {type(error).__name__}", field=path.name
        ) from None
    found = re.search(rf"\bmm-{kind.value}-v(\d+)\b", root.get("className", ""))
    if not found:
        raise ConfigurationError(f"the root's class must hold mm-{kind.value}-v<number>", field=path.name)
    for element in root.iter("Style"):
        element.text = style
    return Template(kind, int(found[1]), ElementTree.tostring(root, "unicode"))
