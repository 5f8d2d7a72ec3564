"""A version as self-contained parquet, pictures inside, for `datasets` and other readers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pyarrow as pa
import yaml
from pyarrow.parquet import ParquetWriter

from annotation.dataset.columns import COLUMNS
from annotation.dataset.versions import ALL, Version, file_name
from services.errors import InvalidInput, Unavailable

_BATCH = 100
_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_SHOWN = {
    "image_path": "images", "chosen_image_path": "chosen_images", "rejected_image_path": "rejected_images",
    "completion_image_path": "completion_images",
}  # fmt: skip


def export(version: Version, out: str) -> dict[str, Any]:
    """Write `<out>/<file>/<split>.parquet` and the card below a folder or an fsspec address that holds nothing yet.

    Beside every column of paths is one of pictures (`images`, …), which `datasets` decodes. Rows are 100 to a row group.

    Raises:
        InvalidInput: `out` holds something, is no address, or a file of the version is missing.
        Unavailable: it cannot be written.
    """
    try:
        filesystem, root = fsspec.core.url_to_fs(out)
    except (ValueError, ImportError):
        raise InvalidInput("is no folder or address that fsspec can open", field="out") from None
    written: dict[str, int] = {}
    try:
        if filesystem.exists(root) and filesystem.ls(root):
            raise InvalidInput("is not empty", field="out")
        filesystem.makedirs(root, exist_ok=True)
        configs: dict[str, list[dict[str, str]]] = {}
        for file, split in ALL:
            name = f"{file}/{split}.parquet"
            if not (count := version.manifest["counts"][file_name(file, split)]):
                continue
            filesystem.makedirs(f"{root}/{file}", exist_ok=True)
            schema = _schema(file)
            with filesystem.open(f"{root}/{name}", "wb") as stream, ParquetWriter(stream, schema) as table:
                for batch in _batches(version, file, split):
                    table.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
            written[name] = count
            configs.setdefault(file, []).append({"split": split, "path": name})
        filesystem.pipe_file(f"{root}/README.md", _card(version, configs).encode())
    except OSError as error:
        raise Unavailable(f"cannot be written: {type(error).__name__}") from None
    return {"version": version.id, "out": out, "records": written}


def _schema(file: str) -> pa.Schema:
    """The columns and those of pictures, with what `datasets` needs to decode them."""
    columns = list(COLUMNS[file])
    shown = [_SHOWN[column.name] for column in columns if column.name in _SHOWN]
    schema = pa.schema([*columns, *((name, pa.list_(_PICTURE)) for name in shown)])
    features = {column.name: _feature(column.type) for column in schema}
    features |= {name: {"_type": "List", "feature": {"_type": "Image"}} for name in shown}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"_type": "List", "feature": _feature(kind.value_type)}
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _feature(kind.field(i).type) for i in range(kind.num_fields)}
    return {"_type": "Value", "dtype": str(kind)}


def _batches(version: Version, file: str, split: str) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for record in version.records(file, split):
        for paths, pictures in _SHOWN.items():
            if paths in record:
                record[pictures] = [_picture(version, path) for path in record[paths]]
        batch.append(record)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _picture(version: Version, path: str) -> dict[str, Any]:
    file = version.path / path
    if not file.resolve().is_relative_to(version.path.resolve()) or not file.is_file():
        raise InvalidInput("a picture is missing; `verify` says which", field="image_path")
    return {"bytes": file.read_bytes(), "path": PurePosixPath(path).name}


def _card(version: Version, configs: dict[str, list[dict[str, str]]]) -> str:
    _, front, body = (version.path / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    fields = yaml.safe_load(front)
    fields["configs"] = [
        {"config_name": file, "data_files": files, **({"default": True} if file == "rows" else {})}
        for file, files in configs.items()
    ]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n{body}"
