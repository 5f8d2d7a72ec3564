"""One pass over a data set before training: what can be used, how long it is, what is held out.

It meets every row that cannot be used before the first step, encodes every picture into the cache, and lets the number
of steps be known. Its result is kept in a file and used again for the same data and vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInput
from training.rows.schema import pair_of, row_of
from training.rows.sequence import Example, SequenceMaker, learnt
from training.rows.source import Source
from training.rows.trouble import Skipped, Unusable

Progress = Callable[[int, int, dict[str, float]], None]


class Reader:
    """Sequences of a source's rows, or of its pairs."""

    def __init__(self, source: Source, maker: SequenceMaker, *, pairs: bool = False) -> None:
        self.source, self.maker, self.pairs = source, maker, pairs

    def __getitem__(self, index: int) -> Example:
        """Raises: Unusable."""
        return self.of(self.source.read(index))

    def of(self, record: Mapping[str, Any]) -> Example:
        return self.maker.pair(pair_of(record)) if self.pairs else self.maker.row(row_of(record))


@dataclass(frozen=True)
class Survey:
    """Of each row of a source: `length` int32 [n], ids of its sequence, 0 where it cannot be used; `text` and `codes`
    int32 [n], how many of each are learnt; `held` bool [n], kept for validation."""

    length: NDArray[np.int32]
    text: NDArray[np.int32]
    codes: NDArray[np.int32]
    held: NDArray[np.bool_]
    skipped: Skipped

    @property
    def learnt(self) -> NDArray[np.bool_]:
        """bool [n]: usable and not held out."""
        return (self.length > 0) & ~self.held


def survey(
    reader: Reader,
    holdout: float,
    seed: int,
    strict: bool,
    kept: Path | None = None,
    progress: Progress = lambda done, total, figures: None,
) -> Survey:
    """Read every row once.

    Args:
        holdout: share of the pictures (of the texts, where there are none) kept for validation with all their rows.
        kept: file of the result; beside it `skipped.jsonl` lists every row left out.

    Raises:
        InvalidInput: with `strict` the first row that cannot be used; else where none can.
    """
    stamp = _stamp(reader, holdout, seed)
    if kept is not None and kept.exists():
        with np.load(kept) as found:
            if str(found["stamp"]) == stamp:
                skipped = Skipped.read(kept.with_name("skipped.jsonl"))
                again = Survey(found["length"], found["text"], found["codes"], found["held"], skipped)
                return _checked(again, reader, strict)
    count = len(reader.source)
    length, text, codes = (np.zeros(count, np.int32) for _ in range(3))
    held, skipped = np.zeros(count, np.bool_), Skipped()
    for index in range(count):
        try:
            record = reader.source.read(index)
            example = reader.of(record)
        except Unusable as trouble:
            place = reader.source.place(index)
            if strict:
                raise InvalidInput(f"{trouble.message} ({trouble.reason})", field=place) from None
            skipped.add(place, trouble)
        else:
            length[index] = len(example)
            text[index], codes[index] = learnt(example, reader.maker.vocabulary)
            held[index] = _drawn(record, seed) < holdout
        if index % 50 == 49 or index == count - 1:
            progress(index + 1, count, {"left out": float(len(skipped.rows))})
    result = Survey(length, text, codes, held, skipped)
    if kept is not None:
        skipped.write(kept.with_name("skipped.jsonl"))
        partial = kept.with_suffix(".partial.npz")
        np.savez(partial, stamp=stamp, length=length, text=text, codes=codes, held=held)
        os.replace(partial, kept)
    return _checked(result, reader, strict)


def _checked(result: Survey, reader: Reader, strict: bool) -> Survey:
    skipped, name = result.skipped, reader.source.name
    if strict and skipped.rows:
        place, reason, message = skipped.rows[0]
        raise InvalidInput(f"{message} ({reason})", field=place)
    if not result.length.any():
        if not skipped.rows:
            raise InvalidInput("holds no rows", field=name)
        place, reason, message = skipped.rows[0]
        hint = ""
        if skipped.foreign > len(skipped.rows) // 2:
            hint = "; `tokens` seem to be another model's: leave them out, `text` and `image_path` serve every model"
        raise InvalidInput(
            f"none of {len(skipped.rows)} rows can be used, first {place}: {message} ({reason}){hint}",
            field=name,
        )
    return result


def _stamp(reader: Reader, holdout: float, seed: int) -> str:
    maker = reader.maker
    values = [reader.source.digest, reader.pairs, holdout, seed, maker.span, maker.context]
    values.append(hashlib.sha256(maker.vocabulary.tokenizer_json.encode()).hexdigest())
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _drawn(record: Mapping[str, Any], seed: int) -> float:
    """A number in [0, 1) that follows from the row's picture: rows about one picture are held out together."""
    key = record.get("image_path") or record.get("text") or record.get("prompt") or record.get("tokens")
    digest = hashlib.blake2b(f"{seed}:{json.dumps(key, default=str)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
