"""Questions about a phantom, each with its one right answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.phantoms.catalogue import CATALOGUE
from evaluation.phantoms.core import SIDES, SIZES, Kind, Modality, Truth
from evaluation.phantoms.language import NUMBERS, article, impression, pick

CLOSED, OPEN, MCQ = "closed", "open", "mcq"
TYPES = (CLOSED, OPEN, MCQ)
LETTERS = "ABCD"
ATTRIBUTES = ("side", "size", "count")
"""Topics that ask how a finding is, not which."""


@dataclass(frozen=True)
class Question:
    """A question with its answer; `type` is one of TYPES, `topic` what it asks about."""

    type: str
    topic: str
    text: str
    answer: str


def answer_matches(question: Question, text: str) -> bool:
    """Whether `text` is the answer, letter case, outer white space and closing punctuation aside."""
    return _normal(text) == _normal(question.answer)


def _normal(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().rstrip(".!)").strip().lower()


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _named(kind: Kind, rng: np.random.Generator) -> str:
    """The kind's name, sometimes one of its synonyms."""
    return pick(rng, kind.synonyms) if kind.synonyms and rng.random() < 0.25 else kind.name


def closed_questions(phantom: Truth, rng: np.random.Generator) -> list[Question]:
    """Every yes/no question; the topics `presence`, `side`, `size`, `count`, `normal` and `modality`."""
    modality = CATALOGUE[phantom.modality]
    return [
        Question(CLOSED, topic, text, _yes(answer)) for topic, text, answer in _closed(phantom, modality, rng)
    ]


def _closed(phantom: Truth, modality: Modality, rng: np.random.Generator) -> Iterator[tuple[str, str, bool]]:
    for kind in modality.kinds:
        finding = phantom.finding(kind.name)
        name = _named(kind, rng)
        one = article(name, kind.article)
        many = kind.plural if kind.counts else one
        asked = pick(rng, (f"Is there {one}?", f"Does this image show {many}?", f"Do you see {one}?"))
        yield "presence", asked, finding is not None
        if kind.sided:
            side = pick(rng, SIDES)
            asked = pick(rng, (f"Is there a {side} {name}?", f"Is there {one} on the {side} side?"))
            yield "side", asked, finding is not None and finding.side == side
        if finding is None:
            continue
        if kind.sided:
            side = pick(rng, SIDES)
            yield "side", f"Is the {name} on the {side} side?", finding.side == side
        if kind.sized:
            size = pick(rng, SIZES)
            yield "size", f"Is the {name} {size}?", finding.size == size
        if kind.counts:
            number = int(rng.choice(kind.counts))
            noun = kind.name if number == 1 else kind.plural
            verb = "Is" if number == 1 else "Are"
            yield "count", f"{verb} there exactly {NUMBERS[number]} {noun}?", finding.count == number
    asked = pick(rng, ("Is this image normal?", "Is this a normal picture?"))
    yield "normal", asked, phantom.normal
    asked = pick(rng, ("Is anything abnormal in this picture?", "Is there any abnormality?"))
    yield "normal", asked, not phantom.normal
    other = modality if rng.random() < 0.5 else CATALOGUE[pick(rng, tuple(CATALOGUE))]
    name = pick(rng, (other.name, *other.synonyms))
    yield "modality", f"Is this {article(name)}?", other.id == modality.id


def open_questions(phantom: Truth, rng: np.random.Generator) -> list[Question]:
    """Every question with an answer of a few words; absent findings are asked about as well."""
    modality = CATALOGUE[phantom.modality]
    return [Question(OPEN, topic, text, answer) for topic, text, answer in _open(phantom, modality, rng)]


def _open(phantom: Truth, modality: Modality, rng: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    yield (
        "modality",
        pick(rng, ("What modality is this?", "What kind of image is this?", "Which modality is shown?")),
        modality.name,
    )
    yield "organ", pick(rng, ("What organ is shown?", "Which part of the body is this?")), modality.organ
    abnormal = (
        "What is abnormal in this picture?",
        "What is abnormal?",
        "What abnormality is seen?",
        "What is the diagnosis?",
        "What does this image show?",
    )
    yield "abnormality", pick(rng, abnormal), impression(phantom)
    for kind in modality.kinds:
        finding = phantom.finding(kind.name)
        if finding is None and rng.random() < 0.7:
            continue
        name, missing = _named(kind, rng), f"there is no {kind.name}"
        if kind.sided:
            asked = pick(
                rng,
                (f"Which side is the {name} on?", f"Where is the {name}?", f"On which side is the {name}?"),
            )
            yield "side", asked, (finding.side or "") if finding else missing
        if kind.sized:
            asked = pick(
                rng, (f"What size is the {name}?", f"How large is the {name}?", f"How big is the {name}?")
            )
            yield "size", asked, (finding.size or "") if finding else missing
        if kind.counts:
            asked = pick(rng, (f"How many {kind.plural} are there?", f"How many {kind.plural} do you see?"))
            yield "count", asked, NUMBERS[finding.count or 0] if finding else "none"


def mcq_questions(phantom: Truth, rng: np.random.Generator) -> list[Question]:
    """Every multiple-choice question: options `A) … B) …` on lines of their own, the answer a letter."""
    modality = CATALOGUE[phantom.modality]
    names = [kind.name for kind in modality.kinds]
    wrong = [name for name in names if phantom.finding(name) is None]
    right = (
        pick(rng, [finding.kind for finding in phantom.findings]) if phantom.findings else "no abnormality"
    )
    if phantom.findings:
        wrong.append("no abnormality")
    asked = pick(rng, ("What does this image show?", "Which finding is present?", "What is the diagnosis?"))
    result = [_choice("abnormality", asked, right, wrong, rng)]
    others = [known.name for known in CATALOGUE.values() if known.id != modality.id]
    result.append(_choice("modality", "Which modality is this?", modality.name, others, rng))
    for finding in phantom.findings:
        kind = modality.kind(finding.kind)
        if finding.side:
            rest = [side for side in SIDES if side != finding.side]
            result.append(_choice("side", f"Which side is the {kind.name} on?", finding.side, rest, rng))
        if finding.size:
            rest = [size for size in SIZES if size != finding.size]
            result.append(_choice("size", f"What size is the {kind.name}?", finding.size, rest, rng))
        if finding.count:
            rest = [NUMBERS[number] for number in (1, 2, 3) if number != finding.count]
            result.append(
                _choice("count", f"How many {kind.plural} are there?", NUMBERS[finding.count], rest, rng)
            )
    return result


def _choice(topic: str, text: str, right: str, wrong: Sequence[str], rng: np.random.Generator) -> Question:
    options = [right, *(wrong[int(index)] for index in rng.permutation(len(wrong))[: len(LETTERS) - 1])]
    options = [options[int(index)] for index in rng.permutation(len(options))]
    lines = [f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return Question(MCQ, topic, "\n".join([text, *lines]), LETTERS[options.index(right)])


def questions(phantom: Truth, rng: np.random.Generator | None = None) -> list[Question]:
    """All questions of all types; without `rng` the wording follows from the phantom's seed."""
    rng = rng or np.random.default_rng([phantom.seed, 2])
    return [*closed_questions(phantom, rng), *open_questions(phantom, rng), *mcq_questions(phantom, rng)]


def balanced(asked: Sequence[Question], rng: np.random.Generator) -> Question:
    """One of the questions, drawn so that topics, and within a topic answers, are equally likely."""
    topics = sorted({question.topic for question in asked})
    topic = pick(rng, topics)
    answers = sorted({question.answer for question in asked if question.topic == topic})
    answer = pick(rng, answers)
    options = [question for question in asked if question.topic == topic and question.answer == answer]
    return options[int(rng.integers(len(options)))]


def even_answers(asked: Sequence[Question], rng: np.random.Generator) -> Question:
    """One of the questions, drawn so that answers, and with an answer topics, are equally likely.

    For measuring yes/no questions: always saying "no" then scores one half.
    """
    answer = pick(rng, sorted({question.answer for question in asked}))
    rest = [question for question in asked if question.answer == answer]
    topic = pick(rng, sorted({question.topic for question in rest}))
    options = [question for question in rest if question.topic == topic]
    return options[int(rng.integers(len(options)))]
