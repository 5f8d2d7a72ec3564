"""`medmax_eval_data` on disk, read row by row: saved by `datasets`, parquet or JSONL.

Fields: `task_name, question_type, prompt, answer, image_path`; `phantom` (JSON) where rows are made from phantoms.
A row that cannot be used is a `BadRow`, named by file and line; reading goes on. Source of the schema: REFERENCES §1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.suite.example import Row
from services.errors import InvalidInput

FIELDS = ("task_name", "question_type", "prompt", "answer", "image_path")
MAX_LINE_BYTES = 4 << 20
MAX_CHARS = {"task_name": 128, "question_type": 128, "prompt": 200_000, "answer": 200_000, "image_path": 1024}
MAX_PICTURE_BYTES = 64 << 20
_BATCH = 256


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used. `reason` is short and stable, `detail` a sentence."""

    place: str
    reason: str
    detail: str


@dataclass(frozen=True)
class EvalData:
    """A folder of evaluation data.

    Attributes:
        root: pictures must lie below it.
        files: what holds the rows, in order, all of one kind.
    """

    root: Path
    kind: str
    files: tuple[Path, ...]

    @classmethod
    def find(cls, data: Path) -> EvalData:
        """The data under `data`, a folder or a file. Raises: InvalidInput where there is none."""
        if data.is_file():
            kind = {".jsonl": "jsonl", ".parquet": "parquet", ".arrow": "arrow"}.get(data.suffix)
            if kind is None:
                raise InvalidInput("must be a folder, or a .jsonl, .parquet or .arrow file", field="--data")
            return cls(data.parent.resolve(), kind, (data.resolve(),))
        if not data.is_dir():
            raise InvalidInput(f"there is no folder {data}", field="--data")
        root = data.resolve()
        saved = sorted(
            path.parent for path in root.glob("**/state.json") if len(path.relative_to(root).parts) <= 3
        )
        if saved:
            return cls(root, "arrow", tuple(file for folder in saved for file in _saved_files(folder)))
        for kind in ("parquet", "jsonl"):
            files = sorted({*root.glob(f"*.{kind}"), *root.glob(f"data/*.{kind}")})
            if files:
                return cls(root, kind, tuple(files))
        raise InvalidInput("holds no state.json (datasets), *.parquet or *.jsonl", field="--data")

    def digest(self) -> str:
        """Of the rows' files, names and bytes; tells whether a run is resumed on the same data."""
        total = hashlib.sha256()
        for file in self.files:
            total.update(file.relative_to(self.root).as_posix().encode() + b"\0")
            with file.open("rb") as opened:
                total.update(hashlib.file_digest(opened, "sha256").digest())
        return total.hexdigest()

    def rows(self) -> Iterator[Row | BadRow]:
        """Every row in order, one at a time."""
        seen: dict[str, int] = {}
        for file in self.files:
            for place, raw in _raw(self.kind, file, self.root):
                if isinstance(raw, BadRow):
                    yield raw
                    continue
                row = self._checked(place, raw)
                if isinstance(row, Row):
                    again = seen[row.id] = seen.get(row.id, -1) + 1
                    if again:
                        row = Row(**{**row.__dict__, "id": f"{row.id}-{again}"})
                yield row

    def _checked(self, place: str, raw: Any) -> Row | BadRow:
        if not isinstance(raw, dict):
            return BadRow(place, "not_an_object", "is not an object")
        for name in FIELDS:
            value = raw.get(name)
            if value is None and name == "image_path":
                continue
            if value is None:
                return BadRow(place, "missing_field", f"{name} is missing")
            if not isinstance(value, str):
                return BadRow(place, "wrong_type", f"{name} must be text")
            if len(value) > MAX_CHARS[name]:
                return BadRow(place, "too_long", f"{name} has more than {MAX_CHARS[name]:,} characters")
        phantom = raw.get("phantom")
        if phantom is not None:
            try:
                phantom = json.loads(phantom) if isinstance(phantom, str) else phantom
                if not isinstance(phantom, dict):
                    raise ValueError
            except (ValueError, RecursionError):
                return BadRow(place, "wrong_type", "phantom must be a JSON object")
        picture = None
        if raw.get("image_path"):
            picture = self.root / raw["image_path"]
            try:
                if "\0" in raw["image_path"] or not picture.resolve().is_relative_to(self.root):
                    return BadRow(place, "picture_path", "image_path leads out of the data folder")
                if not picture.is_file():
                    return BadRow(place, "picture_missing", "image_path names no file in the data folder")
                if picture.stat().st_size > MAX_PICTURE_BYTES:
                    return BadRow(place, "too_long", f"the picture has more than {MAX_PICTURE_BYTES:,} bytes")
            except (OSError, RuntimeError):  # a loop of links
                return BadRow(place, "picture_path", "image_path cannot be followed")
        content = json.dumps([raw.get(name) for name in FIELDS]).encode()
        return Row(
            place=place, id=hashlib.sha256(content).hexdigest()[:16], picture=picture, phantom=phantom,
            task_name=raw["task_name"], question_type=raw["question_type"], prompt=raw["prompt"],
            answer=raw["answer"],
        )  # fmt: skip


def _saved_files(folder: Path) -> list[Path]:
    """Arrow files that `datasets.save_to_disk` lists in state.json."""
    try:
        names = [
            entry["filename"] for entry in json.loads((folder / "state.json").read_bytes())["_data_files"]
        ]
        files = [(folder / name).resolve() for name in names]
    except (OSError, ValueError, KeyError, TypeError):
        raise InvalidInput(
            "is no state.json of the datasets library", field=f"{folder.name}/state.json"
        ) from None
    for file in files:
        if not file.is_relative_to(folder) or not file.is_file():
            raise InvalidInput(f"lists {file.name}, which is not there", field=f"{folder.name}/state.json")
    return files


def _raw(kind: str, file: Path, root: Path) -> Iterator[tuple[str, Any]]:
    name = file.relative_to(root).as_posix()
    if kind == "jsonl":
        yield from _lines(file, name)
        return
    from pyarrow import ArrowException

    try:
        batches = _parquet(file) if kind == "parquet" else _arrow(file)
        number = 0
        for batch in batches:
            for raw in batch.to_pylist():
                number += 1
                yield f"{name}:{number}", raw
    except (ArrowException, OSError) as error:
        raise InvalidInput(f"cannot be read as {kind}: {str(error)[:200]}", field=name) from None


def _lines(file: Path, name: str) -> Iterator[tuple[str, Any]]:
    with file.open("rb") as opened:
        number = 0
        while line := opened.readline(MAX_LINE_BYTES + 1):
            number += 1
            place = f"{name}:{number}"
            if len(line) > MAX_LINE_BYTES:
                while line and not line.endswith(b"\n"):
                    line = opened.readline(MAX_LINE_BYTES)
                yield place, BadRow(place, "line_too_long", f"has more than {MAX_LINE_BYTES:,} bytes")
            elif line.strip():
                try:
                    yield place, json.loads(line)
                except (ValueError, RecursionError):
                    yield place, BadRow(place, "not_json", "is not JSON")


def _parquet(file: Path) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as opened:
        yield from opened.iter_batches(_BATCH)


def _arrow(file: Path) -> Iterator[Any]:
    """Batches of an Arrow stream (what `datasets` writes) or file, read from a memory map."""
    import pyarrow

    with pyarrow.memory_map(str(file)) as source:
        try:
            reader = pyarrow.ipc.open_stream(source)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            opened = pyarrow.ipc.open_file(source)
            reader = (opened.get_batch(i) for i in range(opened.num_record_batches))
        for batch in reader:
            for start in range(0, batch.num_rows, _BATCH):
                yield batch.slice(start, _BATCH)
