"""Rows and pairs as sequences of ids, with the positions that are learnt.

    <s> user <end-of-turn> answer [<end-of-turn> user <end-of-turn> answer …]

Every answer is learnt, text and picture alike, and after every answer `</s>`, also where the input goes on with another
turn: an answer ends in the same way wherever it stands. What a user says is never learnt, later turns included. (The
published training learnt everything after the first end-of-turn, users' later turns too, and left out image ids.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from services.checkpoint import Vocabulary
from services.checkpoint.vocabulary import END_OF_TURN
from training.rows.foreign import check_codes, check_text, check_tokens
from training.rows.schema import IMAGE, Pair, Row
from training.rows.trouble import Reason, Unusable

CHOSEN, REJECTED = 1, 2

CodesOf = Callable[[str], NDArray[np.int64]]
"""Codes of the picture at a path. Raises: Unusable."""


@dataclass(frozen=True)
class Example:
    """One sequence of T positions.

    `ids` int64 [T]; `labels` int64 [T], the id to be predicted at each position, -1 where none is learnt; `block` int64
    [T], 0 for what all see, CHOSEN and REJECTED for the answers of a pair, which do not see each other; `positions` int64
    [T], each one's place as if its answer stood alone. `keep`: at its labels the base's probabilities are learnt.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    block: NDArray[np.int64]
    positions: NDArray[np.int64]
    keep: bool = False

    def __len__(self) -> int:
        return len(self.ids)


class SequenceMaker:
    """Makes sequences in one checkpoint's vocabulary.

    Args:
        span: image codes of a picture.
        context: most positions of a sequence. Of longer dialogues the last turns are left out.
        codes_of: for rows that name pictures by path.
    """

    def __init__(self, vocabulary: Vocabulary, span: int, context: int, codes_of: CodesOf) -> None:
        self.vocabulary, self.span, self.context, self._codes_of = vocabulary, span, context, codes_of

    def row(self, row: Row) -> Example:
        """Raises: Unusable."""
        if row.tokens is not None:
            self.check(row)
            parts = self._split(row.tokens)
        else:
            parts = self._parts(row)
        if len(parts) < 2:
            raise Unusable(
                Reason.NO_END_OF_TURN,
                f"tokens: hold no {END_OF_TURN}, so nothing says where the answer begins",
            )
        return replace(self._dialogue(parts, row.last_only), keep=row.keep)

    def tokens(self, row: Row) -> NDArray[np.int64]:
        """The row in the form that MedMax's `tokens` have, int64: `<s>`, text ids and pictures, `</s>`. Raises: Unusable."""
        vocabulary = self.vocabulary
        if row.tokens is not None:
            self.check(row)
            return row.tokens
        ids: list[int] = [vocabulary.bos]
        for number, part in enumerate(self._parts(row)):
            ids += [vocabulary.end_of_turn, *part] if number else part
        return np.array([*ids, vocabulary.eos], np.int64)

    def check(self, row: Row) -> None:
        """Raises: Unusable where the row's `tokens` were not written for this vocabulary."""
        assert row.tokens is not None
        check_tokens(row.tokens, self.vocabulary, self.span)
        if row.text is not None:
            check_text(row.tokens, row.text, self.vocabulary)

    def pair(self, pair: Pair) -> Example:
        """The prompt once, and both answers as continuations that do not see each other. Raises: Unusable."""
        vocabulary = self.vocabulary
        ids = [vocabulary.bos]
        for part in self._parts(pair.prompt):
            ids += [*part, vocabulary.end_of_turn]
        shared = len(ids) - 1
        asked = ids.pop()  # each answer's first id is predicted from an end-of-turn of its own
        labels, block, positions = [-1] * shared, [0] * shared, list(range(shared))
        for number, answer in ((CHOSEN, pair.chosen), (REJECTED, pair.rejected)):
            (answered,) = self._parts(answer)
            ids += [asked, *answered]
            labels += [*answered, vocabulary.eos]
            block += [number] * (len(answered) + 1)
            positions += range(shared, shared + len(answered) + 1)
        if max(len(ids), *positions) > self.context:
            raise Unusable(Reason.TOO_LONG, f"{len(ids)} ids in both answers; the context has {self.context}")
        return _example(ids, labels, block, positions)

    def _parts(self, row: Row) -> list[list[int]]:
        """The ids of each turn of a row's text."""
        text = row.text or ""
        if row.codes is not None:
            spans = [check_codes(codes, self.vocabulary, self.span) for codes in row.codes]
        else:
            spans = [self.vocabulary.image_span(self._codes_of(path)) for path in row.paths]
        left = iter(spans)
        parts = []
        for turn in text.split(END_OF_TURN):
            ids: list[int] = []
            for number, piece in enumerate(turn.split(IMAGE)):
                ids += next(left) if number else []
                ids += self.vocabulary.encode(piece) if piece else []
            parts.append(ids)
        return parts

    def _split(self, tokens: NDArray[np.int64]) -> list[list[int]]:
        vocabulary = self.vocabulary
        stop = len(tokens) - (tokens[-1] == vocabulary.eos)
        inner = tokens[int(tokens[0] == vocabulary.bos) : stop]
        cuts = np.flatnonzero(inner == vocabulary.end_of_turn)
        parts = np.split(inner, cuts)
        return [parts[0].tolist(), *(part[1:].tolist() for part in parts[1:])]

    def _dialogue(self, parts: Sequence[list[int]], last_only: bool) -> Example:
        vocabulary = self.vocabulary
        last = len(parts) // 2 - 1
        ids, labels = [vocabulary.bos], [-1]
        for number, (asked, answer) in enumerate(zip(parts[::2], parts[1::2], strict=False)):
            more = [vocabulary.end_of_turn, *asked] if number else list(asked)
            length = len(ids) + len(more) + 1 + len(answer)
            if not answer or length > self.context:
                if number and not last_only:
                    break
                if not answer:
                    raise Unusable(Reason.NO_ANSWER, f"answer {number + 1} is empty")
                raise Unusable(
                    Reason.TOO_LONG, f"{length} ids in {number + 1} turns; the context has {self.context}"
                )
            ids += [*more, vocabulary.end_of_turn, *answer]
            if last_only and number < last:
                labels += [-1] * (len(more) + len(answer) + 1)
            else:
                labels += [*[-1] * len(more), *answer, vocabulary.eos]
        return _example(ids, labels, [0] * len(ids), list(range(len(ids))))


def _example(ids: list[int], labels: list[int], block: list[int], positions: list[int]) -> Example:
    ids_, labels_, block_, positions_ = (
        np.array(values, np.int64) for values in (ids, labels, block, positions)
    )
    return Example(ids_, labels_, block_, positions_)


def learnt(example: Example, vocabulary: Vocabulary) -> tuple[int, int]:
    """How many text ids and how many image codes are learnt. The forced end of a picture is neither."""
    labels = example.labels[example.labels >= 0]
    codes = int((vocabulary.id_to_code(labels) >= 0).sum())
    return len(labels) - codes - int((labels == vocabulary.end_image).sum()), codes
