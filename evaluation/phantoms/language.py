"""Words for findings: names, captions, reports and drawing prompts, and captions read back into slots."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.phantoms.catalogue import CATALOGUE
from evaluation.phantoms.core import Finding, Kind, Modality, Truth

NUMBERS = ("no", "one", "two", "three", "four")
_VOWELS = tuple("aeiou")


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of the options, evenly."""
    return options[int(rng.integers(len(options)))]


def article(words: str, fallback: str = "a") -> str:
    """The words with their indefinite article; `fallback` settles the article of a bare name ("" = none)."""
    if not fallback:
        return words
    if words.startswith(("MRI", "H&E")):
        return f"an {words}"
    return f"{'an' if words.startswith(_VOWELS) else 'a'} {words}"


def phrase(kind: Kind, finding: Finding, name: str | None = None) -> str:
    """A finding in words: `a large right pleural effusion`, `three liver metastases`, `cardiomegaly`."""
    if finding.count is not None:
        return f"{NUMBERS[finding.count]} {name or (kind.name if finding.count == 1 else kind.plural)}"
    words = " ".join(part for part in (finding.size, finding.side, name or kind.name) if part)
    return article(words, kind.article)


def ordered(modality: Modality, findings: Iterable[Finding]) -> list[Finding]:
    """The findings in the order of the modality's kinds, which is the order of every answer."""
    rank = {kind.name: index for index, kind in enumerate(modality.kinds)}
    return sorted(findings, key=lambda finding: rank[finding.kind])


def listing(modality: Modality, findings: Iterable[Finding]) -> str:
    """All findings in words, joined by `and`."""
    return " and ".join(
        phrase(modality.kind(finding.kind), finding) for finding in ordered(modality, findings)
    )


def caption(phantom: Truth) -> str:
    """The one caption of a phantom: modality and every finding with its attributes."""
    modality = CATALOGUE[phantom.modality]
    shown = listing(modality, phantom.findings) or "no abnormality"
    return f"This {modality.name} shows {shown}."


@dataclass(frozen=True)
class Slots:
    """What a caption says; `modality` is None where none is named."""

    modality: str | None
    findings: tuple[Finding, ...]


def slots(phantom: Truth) -> Slots:
    """What the right caption says."""
    return Slots(phantom.modality, tuple(ordered(CATALOGUE[phantom.modality], phantom.findings)))


def parse_caption(text: str) -> Slots:
    """The slots of a caption in the form of `caption`; what it does not know is left out."""
    text = re.sub(r"\s+", " ", text.strip().rstrip("."))
    head, _, tail = text.partition(" shows ")
    named = re.sub(r"^(this|the|an?) ", "", head.strip(), flags=re.IGNORECASE).lower()
    modality = next((known for known in CATALOGUE.values() if known.name.lower() == named), None)
    if modality is None:
        return Slots(None, ())
    found = [_parse_finding(modality, part.strip()) for part in tail.split(" and ")]
    return Slots(modality.id, tuple(ordered(modality, [finding for finding in found if finding is not None])))


def _parse_finding(modality: Modality, words: str) -> Finding | None:
    words = re.sub(r"^an? ", "", words)
    for kind in modality.kinds:
        for name in (kind.plural, kind.name):
            if not words.endswith(name):
                continue
            before = words[: -len(name)].split()
            size = next((word for word in before if word in ("small", "large")), None)
            side = next((word for word in before if word in ("left", "right")), None)
            count = next((NUMBERS.index(word) for word in before if word in NUMBERS), None)
            return Finding(kind.name, side=side, size=size, count=count)
    return None


def score_caption(text: str, phantom: Truth) -> tuple[int, int]:
    """Right slots and all slots: the modality, each finding's kind, side, size and count, or "normal".

    A finding that is not there costs one slot.
    """
    said, truth = parse_caption(text), slots(phantom)
    right, total = int(said.modality == truth.modality), 1
    if not truth.findings:
        return right + int(said.modality == truth.modality and not said.findings), 2
    by_kind = {finding.kind: finding for finding in said.findings} if right else {}
    for finding in truth.findings:
        answer = by_kind.pop(finding.kind, None)
        total += 1
        right += answer is not None
        for attribute in ("side", "size", "count"):
            value = getattr(finding, attribute)
            if value is not None:
                total += 1
                right += answer is not None and getattr(answer, attribute) == value
    return right, total + len(by_kind)


def subject(modality: Modality, findings: Sequence[Finding], rng: np.random.Generator) -> str:
    """A picture in words, as somebody asks for it: `a chest x-ray with a large right pleural effusion`."""
    name = pick(rng, (modality.name, modality.name, *modality.synonyms))
    if not findings:
        return pick(rng, (f"a normal {name}", f"{article(name)} with no abnormality", f"a healthy {name}"))
    ranked = ordered(modality, findings)
    if len(ranked) == 2 and rng.random() < 0.5:
        ranked.reverse()
    parts = []
    for finding in ranked:
        kind = modality.kind(finding.kind)
        synonym = finding.count is None and kind.synonyms and rng.random() < 0.2
        parts.append(phrase(kind, finding, pick(rng, kind.synonyms) if synonym else None))
    return f"{article(name)} {pick(rng, ('with', 'with', 'showing'))} {' and '.join(parts)}"


def describe(phantom: Truth, rng: np.random.Generator) -> str:
    """A request to draw this phantom, with every attribute of its findings."""
    wanted = subject(CATALOGUE[phantom.modality], phantom.findings, rng)
    forms = (
        f"Draw {wanted}.",
        f"Draw {wanted}.",
        f"Generate an image of {wanted}.",
        f"Show me {wanted}.",
        f"a picture of {wanted}",
        wanted,
        re.sub(r"^an? ", "", wanted),
    )
    return pick(rng, forms)


def report(phantom: Truth, rng: np.random.Generator) -> str:
    """A short radiology report: findings sentence by sentence, then the impression."""
    modality = CATALOGUE[phantom.modality]
    present = {finding.kind for finding in phantom.findings}
    sentences = [
        f"There {'are' if (finding.count or 1) > 1 else 'is'} {phrase(modality.kind(finding.kind), finding)}."
        for finding in ordered(modality, phantom.findings)
    ]
    absent = [kind for kind in modality.kinds if kind.name not in present]
    if absent:
        sentences.append(f"There is no {pick(rng, [kind.name for kind in absent])}.")
    return f"Examination: {modality.name}. Findings: {' '.join(sentences)} Impression: {impression(phantom)}."


def impression(phantom: Truth) -> str:
    """The kinds of finding, or that there is none."""
    modality = CATALOGUE[phantom.modality]
    return " and ".join(finding.kind for finding in ordered(modality, phantom.findings)) or "no abnormality"
