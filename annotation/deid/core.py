"""What de-identification finds, reports and returns. Plain data; nothing here holds removed text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from annotation.core import Item


class Category(StrEnum):
    """The 18 identifiers of HIPAA's Safe Harbor (45 CFR 164.514(b)(2)(i)); ages are apart from dates."""

    NAME = "name"
    PLACE = "place"  # smaller than a state
    DATE = "date"  # finer than a year
    AGE = "age"  # over 89
    PHONE = "phone"
    FAX = "fax"
    EMAIL = "email"
    SSN = "ssn"
    RECORD = "record"  # medical record numbers
    HEALTH_PLAN = "health_plan"
    ACCOUNT = "account"
    LICENCE = "licence"
    VEHICLE = "vehicle"
    DEVICE = "device"
    URL = "url"
    IP = "ip"
    BIOMETRIC = "biometric"
    PHOTO = "photo"  # full-face photographs and the like
    OTHER = "other"  # any other unique number, characteristic or code
    PICTURE_TEXT = "picture_text"  # burned into a picture, of whatever category

    @property
    def placeholder(self) -> str:
        """What stands in a text in place of the identifier: `[NAME]`."""
        return f"[{self.value.upper()}]"


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` of a text are an identifier."""

    category: Category
    start: int
    end: int


class Recogniser(Protocol):
    """Finds identifiers in a text; the seam for recognisers from elsewhere."""

    def find(self, text: str) -> Iterable[Span]:
        """Spans in any order, overlapping or not. Placeholders are no identifiers and never part of `text`."""
        ...


@dataclass(frozen=True)
class Finding:
    """`count` identifiers of a category were removed at `where` (`dialogue[0].parts[1]`, `answer.parts[0]`)."""

    category: Category
    where: str
    count: int


@dataclass(frozen=True)
class Report:
    """What was removed from an item; never the removed text."""

    findings: tuple[Finding, ...] = ()

    @property
    def counts(self) -> dict[Category, int]:
        """Removed identifiers by category."""
        total: Counter[Category] = Counter()
        for finding in self.findings:
            total[finding.category] += finding.count
        return dict(total)

    def record(self) -> list[dict[str, str | int]]:
        """For JSON."""
        return [{"category": str(f.category), "where": f.where, "count": f.count} for f in self.findings]

    @classmethod
    def of(cls, where: str, categories: Iterable[Category]) -> Report:
        return cls(tuple(Finding(c, where, n) for c, n in sorted(Counter(categories).items())))

    def __add__(self, other: Report) -> Report:
        return Report(self.findings + other.findings)


@dataclass(frozen=True)
class Cleaned:
    """An item that may leave, or may not.

    Attributes:
        item: without what was found; pictures are PNG files and their `sha256` is the new file's.
        report: what was removed.
        held: why the item must not be sent, without any word of it; None where it may be.
    """

    item: Item
    report: Report
    held: str | None = None
