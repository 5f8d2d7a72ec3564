"""Data sets on disk, read row by row: JSONL by byte offsets, parquet by row groups, a folder of either.

Of a data set of any size only offsets are in memory: 24 bytes a line.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInput
from training.rows.trouble import Reason, Unusable

MAX_LINE_BYTES = 4 << 20
MAX_GROUP_BYTES = 1 << 30
_SCAN_BYTES = 8 << 20

Advance = Callable[[int, int], None]
"""Told bytes done and all."""


class Source(ABC):
    """Rows 0 to n-1 of a data set."""

    name: str
    digest: str
    """SHA-256, hex, of the files' contents."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def place(self, index: int) -> str:
        """`file:line` of a row, as people count; rows of parquet files count as lines."""

    @abstractmethod
    def read(self, index: int) -> dict[str, Any]:
        """The row. Raises: Unusable where it is no JSON object of bearable length."""

    @property
    @abstractmethod
    def blocks(self) -> list[range]:
        """Runs of rows that are quick to read in any order, one after the other."""

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Every row once, in an order drawn from `rng`: blocks at random, and rows at random within each."""
        blocks = self.blocks
        parts = [
            rng.permutation(np.arange(b.start, b.stop))
            for b in (blocks[i] for i in rng.permutation(len(blocks)))
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


class JsonLines(Source):
    """One JSON object a line. Blank lines are no rows, and count as lines."""

    def __init__(
        self, path: Path, index: Path | None = None, advance: Advance = lambda done, total: None
    ) -> None:
        """
        Args:
            index: file to keep the offsets in; used again while size and time of `path` stay the same.
        """
        self.path, self.name = path, path.name
        state = path.stat()
        stamp = f"{state.st_size}-{state.st_mtime_ns}"
        if index is not None and index.exists():
            with np.load(index) as kept:
                if str(kept["stamp"]) == stamp:
                    self.digest, self._lines = str(kept["digest"]), kept["lines"]
                    return
        self.digest, self._lines = _scan(path, advance)
        if index is not None:
            partial = index.with_suffix(".partial.npz")
            np.savez(partial, stamp=stamp, digest=self.digest, lines=self._lines)
            os.replace(partial, index)

    def __len__(self) -> int:
        return len(self._lines)

    def place(self, index: int) -> str:
        return f"{self.name}:{self._lines[index, 2]}"

    @property
    def blocks(self) -> list[range]:
        return [range(len(self))] if len(self) else []

    def read(self, index: int) -> dict[str, Any]:
        start, stop, _ = (int(number) for number in self._lines[index])
        if stop - start > MAX_LINE_BYTES:
            raise Unusable(
                Reason.LINE_TOO_LONG, f"{stop - start} bytes; the limit of a line is {MAX_LINE_BYTES}"
            )
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(stop - start)
        try:
            row = json.loads(data.decode("utf-8-sig" if start == 0 else "utf-8"))
        except UnicodeDecodeError as error:
            raise Unusable(Reason.NOT_UTF8, f"byte {error.start} of the line is no UTF-8") from None
        except RecursionError:
            raise Unusable(Reason.NOT_JSON, "is nested too deep") from None
        except ValueError as error:
            where = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
            raise Unusable(Reason.NOT_JSON, f"is no JSON{where}") from None
        if not isinstance(row, dict):
            raise Unusable(Reason.NOT_AN_OBJECT, "must be a JSON object")
        return row


def _scan(path: Path, advance: Advance) -> tuple[str, NDArray[np.int64]]:
    """Digest of the file, and start, end and number of every line that is not blank, int64 [n, 3]."""
    digest = hashlib.sha256()
    ends: list[NDArray[np.int64]] = []
    blank = b" \t\r\n"
    total, done, last = path.stat().st_size, 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(_SCAN_BYTES):
            digest.update(block)
            ends.append(np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + done)
            done, last = done + len(block), block[-1:]
            advance(done, total)
        stops = np.concatenate(ends) if ends else np.zeros(0, np.int64)
        if last != b"\n":
            stops = np.append(stops, done)
        starts = np.concatenate((np.zeros(min(1, len(stops)), np.int64), stops[:-1] + 1))
        lines = np.stack((starts, stops, np.arange(1, len(stops) + 1)), axis=1).astype(np.int64)
        keep = np.ones(len(lines), np.bool_)
        for i in np.flatnonzero(stops - starts < 16):
            file.seek(int(starts[i]))
            keep[i] = bool(file.read(int(stops[i] - starts[i])).strip(blank))
    return digest.hexdigest(), lines[keep]


class Parquet(Source):
    """A parquet file; a row group is read whole when one of its rows is asked for."""

    def __init__(self, path: Path) -> None:
        from pyarrow import ArrowException, parquet

        self.name = path.name
        try:
            self._file = parquet.ParquetFile(path)
        except (ArrowException, OSError) as error:
            raise InvalidInput(f"cannot be read as parquet: {error}", field=path.name) from None
        with path.open("rb") as stream:
            self.digest = hashlib.file_digest(stream, "sha256").hexdigest()
        groups = [self._file.metadata.row_group(i) for i in range(self._file.num_row_groups)]
        if groups and (most := max(group.total_byte_size for group in groups)) > MAX_GROUP_BYTES:
            raise InvalidInput(
                f"has a row group of {most} bytes; the limit is {MAX_GROUP_BYTES}, write smaller ones",
                field=path.name,
            )
        self._starts = [0, *np.cumsum([group.num_rows for group in groups]).tolist()]
        self._group = lru_cache(maxsize=2)(self._file.read_row_group)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def place(self, index: int) -> str:
        return f"{self.name}:{index + 1}"

    @property
    def blocks(self) -> list[range]:
        return [range(a, b) for a, b in zip(self._starts[:-1], self._starts[1:], strict=True)]

    def read(self, index: int) -> dict[str, Any]:
        from pyarrow import ArrowException

        group = bisect.bisect_right(self._starts, index) - 1
        try:
            table = self._group(group)
        except (ArrowException, OSError) as error:
            raise InvalidInput(f"row group {group} cannot be read: {error}", field=self.name) from None
        row: dict[str, Any] = table.slice(index - self._starts[group], 1).to_pylist()[0]
        return row


class Joined(Source):
    """Several files as one data set."""

    def __init__(self, name: str, parts: list[Source]) -> None:
        self.name, self._parts = name, parts
        self.digest = hashlib.sha256(b"".join(bytes.fromhex(part.digest) for part in parts)).hexdigest()
        self._starts = [0, *np.cumsum([len(part) for part in parts]).tolist()]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _at(self, index: int) -> tuple[Source, int]:
        part = bisect.bisect_right(self._starts, index) - 1
        return self._parts[part], index - self._starts[part]

    def place(self, index: int) -> str:
        part, inner = self._at(index)
        return part.place(inner)

    @property
    def blocks(self) -> list[range]:
        return [
            range(start + block.start, start + block.stop)
            for start, part in zip(self._starts[:-1], self._parts, strict=True)
            for block in part.blocks
        ]

    def read(self, index: int) -> dict[str, Any]:
        part, inner = self._at(index)
        return part.read(inner)


def open_source(
    path: Path, indexes: Path | None = None, advance: Advance = lambda done, total: None
) -> Source:
    """The data set in `path`: a .jsonl or .parquet file, or a folder of them.

    Args:
        indexes: folder to keep the offsets of JSONL files in.

    Raises:
        InvalidInput: there is none, or it cannot be read.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".jsonl", ".parquet"))
        if not files:
            raise InvalidInput("holds no .jsonl or .parquet file", field=path.name)
        return Joined(path.name, [open_source(file, indexes, advance) for file in files])
    if not path.is_file():
        raise InvalidInput("there is no such file or folder", field=str(path))
    try:
        if path.suffix == ".parquet":
            return Parquet(path)
        if path.suffix == ".jsonl":
            return JsonLines(path, indexes / f"{path.name}.index.npz" if indexes else None, advance)
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", field=path.name) from None
    raise InvalidInput("must end in .jsonl or .parquet, or be a folder of such files", field=path.name)
