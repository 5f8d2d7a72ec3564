"""One shard of a tokenized data set: read, encoded, written whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services import config
from services.checkpoint import open_checkpoint
from services.errors import InvalidInput, MedMaxError
from training.failures import write_failure
from training.rows.pictures import Pictures
from training.rows.schema import Row, row_of
from training.rows.sequence import SequenceMaker
from training.rows.source import Source, open_source
from training.rows.trouble import Skipped, Unusable

_TOGETHER = 64
"""Rows whose pictures are encoded together."""


@dataclass(frozen=True)
class Task:
    """What every shard of a run has in common; JSON values alone, so that it travels.

    `listing` is the file of picture names where a folder of pictures is tokenized, else None.
    """

    data: str
    listing: str | None
    images: str
    out: str
    checkpoint: str
    vqgan: str | None
    device: str
    shard_rows: int
    strict: bool

    def source(self) -> Source:
        return open_source(Path(self.listing or self.data), Path(self.out) / ".index")

    def file(self, shard: int) -> Path:
        return Path(self.out) / f"part-{shard:05d}.parquet"

    @property
    def failure(self) -> Path:
        """What ended a run, where one of our errors did."""
        return Path(self.out) / ".reports" / "failure.json"

    def report(self, shard: int) -> Path:
        """Written before the shard's parquet file: rows and failures of it."""
        return Path(self.out) / ".reports" / f"{shard:05d}.json"


def read_report(file: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return value


class ShardWriter:
    """Writes shards of one task; holds the tokenizer between them. Ray Data makes one in each of its actors."""

    def __init__(self, task: Task) -> None:
        self._task = task
        given = {"checkpoint": task.checkpoint, "device": task.device, "vqgan": task.vqgan}
        settings = config.load(**{name: value for name, value in given.items() if value is not None})
        checkpoint = open_checkpoint(settings.checkpoint, settings.vqgan)
        self._pictures = Pictures(Path(task.images), settings)
        self._source = task.source()
        self._vocabulary, self._span = checkpoint.vocabulary, checkpoint.codes_per_image

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """For `map_batches`: writes the shards numbered in `batch`, and counts."""
        try:
            counts = [self.write(int(shard)) for shard in batch["shard"]]
        except MedMaxError as error:
            write_failure(self._task.failure, error)
            raise
        return {name: [count[name] for count in counts] for name in ("rows", "failed")}

    def write(self, shard: int) -> dict[str, int]:
        """Rows of the shard that were written and that failed. Raises: InvalidInput in a strict task."""
        from pyarrow import Table, parquet, schema

        task, skipped = self._task, Skipped()
        start = shard * task.shard_rows
        places = range(start, min(start + task.shard_rows, len(self._source)))
        rows = list(self._rows(places, skipped))
        fields = schema(_picture_fields() if task.listing else _row_fields())
        file, report = task.file(shard), task.report(shard)
        counts = {"rows": len(rows), "failed": len(skipped.rows)}
        _replace(report, json.dumps({**counts, "left_out": skipped.rows}).encode())
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        parquet.write_table(Table.from_pylist(rows, fields), partial, row_group_size=1000, compression="zstd")
        os.replace(partial, file)
        return counts

    def _rows(self, places: range, skipped: Skipped) -> Iterator[dict[str, Any]]:
        for first in range(places.start, places.stop, _TOGETHER):
            part = range(first, min(first + _TOGETHER, places.stop))
            found: dict[int, tuple[dict[str, Any], Row]] = {}
            for index in part:
                try:
                    record = self._source.read(index)
                    found[index] = (
                        record,
                        Row(None, None, (record["image_path"],), None)
                        if self._task.listing
                        else row_of(record),
                    )
                except Unusable as trouble:
                    self._left_out(index, trouble, skipped)
            codes = self._pictures.many(
                path for _, row in found.values() if row.tokens is None for path in row.paths
            )

            def codes_of(path: str, codes: Mapping[str, Any] = codes) -> Any:
                if isinstance(codes[path], Unusable):
                    raise codes[path]
                return codes[path]

            maker = SequenceMaker(self._vocabulary, self._span, 1 << 31, codes_of)
            for index, (record, row) in found.items():
                try:
                    if self._task.listing:
                        yield {"image_path": row.paths[0], "image_tokens": codes_of(row.paths[0]).tolist()}
                    else:
                        yield _kept(record, row) | {"tokens": maker.tokens(row).tolist()}
                except Unusable as trouble:
                    self._left_out(index, trouble, skipped)

    def _left_out(self, index: int, trouble: Unusable, skipped: Skipped) -> None:
        place = self._source.place(index)
        if self._task.listing:
            place = self._source.read(index)["image_path"]
        if self._task.strict:
            raise InvalidInput(f"{trouble.message} ({trouble.reason})", field=place)
        skipped.add(place, trouble)


def _kept(record: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """The fields of a row that go along with its tokens."""
    texts = {name: record.get(name) for name in ("task", "source")}
    provenance = record.get("provenance")
    return {
        "text": row.text,
        "image_path": list(row.paths),
        "credential": False,
        **{name: value if isinstance(value, str) else None for name, value in texts.items()},
        "provenance": provenance
        if provenance is None or isinstance(provenance, str)
        else json.dumps(provenance),
    }


def _picture_fields() -> list[tuple[str, Any]]:
    from pyarrow import int32, list_, string

    return [("image_path", string()), ("image_tokens", list_(int32()))]


def _row_fields() -> list[tuple[str, Any]]:
    from pyarrow import bool_, int32, list_, string

    return [
        ("text", string()),
        ("tokens", list_(int32())),
        ("image_path", list_(string())),
        ("task", string()),
        ("source", string()),
        ("credential", bool_()),
        ("provenance", string()),
    ]


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    os.replace(partial, path)
