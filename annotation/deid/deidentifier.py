"""An item without identifiers, or the reason why it must stay here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from annotation.core import Item, Part, Picture, Turn, Verdict
from annotation.deid.core import Category, Cleaned, Finding, Recogniser, Report
from annotation.deid.doubt import doubt
from annotation.deid.ocr import Reader
from annotation.deid.pictures import clean_picture, encode_mask
from annotation.deid.text import MAX_CHARACTERS, RULES, clean, names_in
from services.decoder.marking import Origin
from services.errors import MedMaxError
from services.tokenizer.limits import Limits

LIMITS = Limits(max_bytes=64 << 20, max_pixels=50_000_000)


@dataclass(frozen=True)
class Deidentifier:
    """Cleans items; holds nothing between them, reads and writes nothing.

    Attributes:
        reader: of text on pictures; without one every item with a picture is held.
        recognisers: of identifiers in texts, besides the rules.
        allowed: lower-case words that are no names though the rules do not know them (drugs, products).
        limits: of pictures.
    """

    reader: Reader | None = None
    recognisers: Sequence[Recogniser] = ()
    allowed: frozenset[str] = frozenset()
    limits: Limits = LIMITS

    def clean(self, item: Item) -> Cleaned:
        """`item` with every found identifier replaced, pictures written anew, and whether it may be sent."""
        return _Cleaning(self, item).run()


@dataclass
class _Cleaning:
    by: Deidentifier
    item: Item
    held: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)
    recognisers: tuple[Recogniser, ...] = RULES

    def run(self) -> Cleaned:
        item = self.item
        texts = list(_texts(item))
        if sum(map(len, texts)) > MAX_CHARACTERS:
            return Cleaned(_without_content(item), Report(), f"more than {MAX_CHARACTERS} characters of text")
        rules = (*RULES, *self.by.recognisers)
        self.recognisers = (*rules[:-1], names_in(texts, rules), rules[-1])
        cleaned = replace(
            item,
            dialogue=tuple(self._turn(turn, f"dialogue[{i}]") for i, turn in enumerate(item.dialogue)),
            answer=self._parts(item.answer, "answer"),
            alternatives=tuple(self._parts(a, f"alternatives[{i}]") for i, a in enumerate(item.alternatives)),
        )
        if item.gold is not None:
            cleaned = replace(cleaned, gold=self._verdict(item.gold))
        held = self.held[0] if self.held else None
        return Cleaned(cleaned, Report(tuple(self.findings)), held)

    def _turn(self, turn: Turn, where: str) -> Turn:
        return replace(turn, parts=self._parts(turn.parts, where))

    def _parts(self, parts: tuple[Part, ...], where: str) -> tuple[Part, ...]:
        return tuple(
            self._text(part, f"{where}.parts[{i}]")
            if isinstance(part, str)
            else self._picture(part, f"{where}.parts[{i}]")
            for i, part in enumerate(parts)
        )

    def _text(self, text: str, where: str) -> str:
        try:
            result = clean(text, self.recognisers)
        except ValueError:
            self._hold(where, "identifiers without end")
            return ""
        self.findings += Report.of(where, result.removed).findings
        if (reason := doubt(result.text, self.by.allowed)) is not None:
            self._hold(where, reason)
        return result.text

    def _picture(self, picture: Picture, where: str) -> Picture:
        known = self.pictures.get(picture.sha256)
        if known is not None:
            return known
        if picture.data is None or hashlib.sha256(picture.data).hexdigest() != picture.sha256:
            self._hold(
                where, "a picture without its file" if picture.data is None else "a picture of another digest"
            )
            return Picture(sha256="", synthetic=picture.synthetic)
        origin = None
        if picture.synthetic:
            origin = Origin(self.item.model_id or "unknown", self.item.model_digest or "unknown")
        result = clean_picture(picture.data, self.by.limits, self.by.reader, origin)
        if result.masked:
            self.findings.append(Finding(Category.PICTURE_TEXT, where, result.masked))
        if result.held is not None:
            self._hold(where, result.held)
        digest = hashlib.sha256(result.data).hexdigest() if result.data else ""
        self.pictures[picture.sha256] = Picture(digest, result.data or None, picture.synthetic)
        return self.pictures[picture.sha256]

    def _verdict(self, verdict: Verdict) -> Verdict:
        regions = tuple(
            replace(
                region,
                picture=self.pictures[region.picture].sha256 if region.picture in self.pictures else "",
                label=self._text(region.label, f"gold.regions[{i}].label"),
                mask=self._mask(region.mask, f"gold.regions[{i}].mask"),
            )
            for i, region in enumerate(verdict.regions)
        )
        return replace(
            verdict,
            text=None if verdict.text is None else self._text(verdict.text, "gold.text"),
            missing=tuple(self._text(text, f"gold.missing[{i}]") for i, text in enumerate(verdict.missing)),
            comment=self._text(verdict.comment, "gold.comment"),
            regions=regions,
        )

    def _mask(self, mask: bytes | None, where: str) -> bytes | None:
        if mask is None:
            return None
        try:
            return encode_mask(mask, self.by.limits)
        except MedMaxError:
            self._hold(where, "a mask that cannot be read")
            return None

    def _hold(self, where: str, reason: str) -> None:
        self.held.append(f"{where}: {reason}")


def _texts(item: Item) -> Iterator[str]:
    groups = (*(turn.parts for turn in item.dialogue), item.answer, *item.alternatives)
    yield from (part for parts in groups for part in parts if isinstance(part, str))
    if item.gold is not None:
        yield from (item.gold.text or "", item.gold.comment, *item.gold.missing)
        yield from (region.label for region in item.gold.regions)


def _without_content(item: Item) -> Item:
    return replace(item, dialogue=(), answer=(), alternatives=(), gold=None)
