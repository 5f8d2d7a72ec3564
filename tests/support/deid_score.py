"""Counts what de-identification removes, holds and lets through."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from annotation.core import Item
from annotation.deid import Category, Cleaned, Deidentifier, RapidReader, clean_dataset
from annotation.deid.text import find
from services.tokenizer.pictures import read_picture
from tests.support.deid_bank import DEVELOPMENT, Bank
from tests.support.deid_cases import Case, Planted, cases
from tests.support.deid_held_out import HELD_OUT

BANKS: dict[str, Bank] = {"development": DEVELOPMENT, "held_out": HELD_OUT}
KEY = b"sixteen bytes and more"


@dataclass
class Score:
    """Counts by category, and of clean cases; texts in `leaks` and `alarms` are all made up."""

    planted: Counter[Category] = field(default_factory=Counter)
    removed: Counter[Category] = field(default_factory=Counter)
    held: Counter[Category] = field(default_factory=Counter)
    found: Counter[Category] = field(default_factory=Counter)
    right: Counter[Category] = field(default_factory=Counter)
    clean: Counter[str] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    held_reasons: list[str] = field(default_factory=list)

    @property
    def leaked(self) -> Counter[Category]:
        return self.planted - self.removed - self.held

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for category in Category:
            planted, found = self.planted[category], self.found[category]
            rows.append(
                {
                    "category": str(category),
                    "planted": planted,
                    "removed": self.removed[category],
                    "held": self.held[category],
                    "leaked": self.leaked[category],
                    "recall": self.removed[category] / planted if planted else None,
                    "found": found,
                    "precision": self.right[category] / found if found else None,
                }
            )
        planted, found = self.planted.total(), self.found.total()
        rows.append(
            {
                "category": "all",
                "planted": planted,
                "removed": self.removed.total(),
                "held": self.held.total(),
                "leaked": self.leaked.total(),
                "recall": self.removed.total() / planted if planted else None,
                "found": found,
                "precision": self.right.total() / found if found else None,
            }
        )
        return rows

    def record(self) -> dict[str, Any]:
        return {"categories": self.rows(), "clean": dict(sorted(self.clean.items()))}


def score(bank: Bank, seed: int, count: int, total: Score, *, pictures: bool = True) -> Score:
    """Adds the cases of `bank` to `total`."""
    by = Deidentifier(reader=RapidReader() if pictures else None)
    for case in cases(bank, seed, count):
        if case.dataset is not None:
            _dataset(case, case.dataset, total)
        elif case.item is not None and (pictures or not case.kind.endswith("picture")):
            _item(case, case.item, by.clean(case.item), total)
    return total


def _item(case: Case, item: Item, cleaned: Cleaned, total: Score) -> None:
    if cleaned.held is not None:
        total.held_reasons.append(f"{case.kind}: {cleaned.held}: {_texts(cleaned.item)[:160]}")
    if case.kind.startswith("clean"):
        _clean(case, item, cleaned, total)
        return
    left = _texts(cleaned.item)
    for planted in case.planted:
        gone = covered(item, cleaned) if case.kind == "picture" else not remains(planted, left)
        _count(planted, gone, cleaned.held is not None, total, left)
    if case.kind != "picture":
        _precision(case, item, total)


def _count(planted: Planted, gone: bool, held: bool, total: Score, context: str) -> None:
    total.planted[planted.category] += 1
    if gone:
        total.removed[planted.category] += 1
    elif held:
        total.held[planted.category] += 1
    else:
        total.leaks.append(f"{planted.category}: {planted.text} | {context[:200]}")


def remains(planted: Planted, text: str) -> bool:
    """Whether a telling piece of the identifier (a word of a name, a run of digits) is still in `text`."""
    text = _plain(text)
    pieces = [piece for piece in _pieces(planted) if piece]
    return any(f" {piece} " in f" {text} " for piece in pieces)


def _pieces(planted: Planted) -> list[str]:
    plain = _plain(planted.text)
    words = plain.split()
    if planted.category in (Category.NAME, Category.PLACE):
        common = {
            "dr",
            "van",
            "der",
            "st",
            "of",
            "hospital",
            "university",
            "street",
            "avenue",
            "center",
            "medical",
            "general",
            "il",
            "the",
            "clinic",
            "rue",
            "des",
        }
        return [
            word
            for word in words
            if len(word) > 2 and word not in common and (not word.isdigit() or len(word) > 3)
        ]
    if planted.category is Category.DATE:
        return [plain]
    long = [word for word in words if len(word) > 3 and any(c.isdigit() for c in word)]
    return [plain, *long] if planted.category is not Category.AGE else [plain]


def _plain(text: str) -> str:
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) != "Mn").lower()
    return " ".join("".join(c if c.isalnum() else " " for c in text).split())


def covered(item: Item, cleaned: Cleaned) -> bool:
    """Whether all lettering is gone: nothing that a reader of text finds is left."""
    picture = cleaned.item.pictures[0]
    if picture.data is None:
        return False
    pixels = read_picture(picture.data, Deidentifier().limits).pixels
    before = read_picture(item.pictures[0].data or b"", Deidentifier().limits).pixels
    changed = np.abs(pixels.astype(int) - before.astype(int)).max(2) > 0
    return bool(changed.any()) and not RapidReader().read(pixels)


def _precision(case: Case, item: Item, total: Score) -> None:
    for text in _parts(item):
        places = [(start, start + len(p.text)) for p in case.planted for start in _all(text, p.text)]
        for span in find(text):
            total.found[span.category] += 1
            hit = any(span.start < end and start < span.end for start, end in places)
            total.right[span.category] += hit
            if not hit:
                total.alarms.append(f"{span.category}: {text[span.start : span.end]} | {text[:160]}")


def _all(text: str, piece: str) -> list[int]:
    return [index for index in range(len(text)) if text.startswith(piece, index)]


def _clean(case: Case, item: Item, cleaned: Cleaned, total: Score) -> None:
    total.clean[f"{case.kind} cases"] += 1
    total.clean[f"{case.kind} held"] += cleaned.held is not None
    if case.kind == "clean_picture":
        total.clean["clean_picture masked"] += bool(cleaned.report.counts)
        return
    left = _texts(cleaned.item)
    total.clean["clean texts changed"] += left != _texts(item)
    total.clean["terms"] += len(case.survive)
    total.clean["terms destroyed"] += sum(term not in left for term in case.survive)
    _precision(case, item, total)


def _texts(item: Item) -> str:
    return "\n".join(_parts(item))


def _parts(item: Item) -> list[str]:
    groups = (*(turn.parts for turn in item.dialogue), item.answer)
    return [part for parts in groups for part in parts if isinstance(part, str)]


def _dataset(case: Case, dataset: Dataset, total: Score) -> None:
    cleaned, _ = clean_dataset(dataset, KEY)
    target = BytesIO()
    cleaned.save_as(target, enforce_file_format=True)
    written = target.getvalue()
    read = str(pydicom.dcmread(BytesIO(written)))
    for planted in case.planted:
        gone = planted.text.encode() not in written and planted.text not in read
        _count(planted, gone, False, total, "dicom")
