"""Rules on text. The closed and the multiple-choice rule are those published with MedMax (REFERENCES §1)."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from evaluation.scorers.core import Case, CorpusScorer, Estimate, Scorer
from evaluation.suite.example import Answer, Score, Truth

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = str.maketrans({mark: " " for mark in string.punctuation if mark not in "'-%+/."})


class ClosedRule(Scorer):
    """Right where the answer holds the right one of "yes" and "no" and not the other, letter case aside."""

    name, version, metric, binary = "closed_rule", 1, "accuracy", True

    async def score(self, truth: Truth, answer: Answer) -> Score:
        said, right = answer.text.lower(), truth.text.strip().lower()
        other = {"yes": "no", "no": "yes"}[right]
        return Score(float(right in said and other not in said))


class McqRule(Scorer):
    """Right where the answer, in capitals and without outer white space, is the letter."""

    name, version, metric, binary = "mcq_rule", 1, "accuracy", True

    async def score(self, truth: Truth, answer: Answer) -> Score:
        return Score(float(answer.text.upper().strip() == truth.text))


class Exact(Scorer):
    """Right where the answer is the truth, character for character, outer white space aside."""

    name, version, metric, binary = "exact", 1, "accuracy", True

    async def score(self, truth: Truth, answer: Answer) -> Score:
        return Score(float(answer.text.strip() == truth.text.strip()))


def normalise(text: str) -> str:
    """Text as VQA benchmarks compare it: lower case, number words as digits, no articles, no punctuation.

    A point stays inside a number, a hyphen or a slash inside a word.
    """
    text = unicodedata.normalize("NFKC", text).lower().translate(_PUNCTUATION)
    text = re.sub(r"(?<!\d)\.|\.(?!\d)", " ", text)
    text = re.sub(r"(?<!\w)[-/']+|[-/']+(?!\w)", " ", text)
    return " ".join(_WORDS.get(word, word) for word in text.split() if word not in _ARTICLES)


class VqaMatch(Scorer):
    """Right where answer and truth are the same after VQA normalisation."""

    name, version, metric, binary = "vqa_match", 1, "accuracy", True

    async def score(self, truth: Truth, answer: Answer) -> Score:
        return Score(float(normalise(answer.text) == normalise(truth.text)))


class PairRight(CorpusScorer):
    """Share of groups (pairs of pictures under one question) in which every answer is right."""

    name, version, metric = "pair_right", 1, "pairs right"

    def estimate(self, cases: Sequence[Case]) -> Estimate:
        groups: dict[str, list[float | None]] = defaultdict(list)
        for case in cases:
            if case.group:
                groups[case.group].append(case.value)
        if not groups:
            return Estimate(None, 0, not_run="no example belongs to a group")
        whole = {group: values for group, values in groups.items() if len(values) > 1 and None not in values}
        units = tuple(float(all(values)) for _, values in sorted(whole.items()))
        value = sum(units) / len(units) if units else None
        return Estimate(value, len(units), failed=len(groups) - len(units), units=units)
