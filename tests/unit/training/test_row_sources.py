"""Data sets on disk: every row by its number, whatever the file holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from services.errors import InvalidInput
from tests.support.instructions import write_lines
from training.rows import source as sources
from training.rows.source import JsonLines, open_source
from training.rows.trouble import Reason, Unusable


def reason(read: object, index: int) -> str:
    with pytest.raises(Unusable) as caught:
        read(index)  # type: ignore[operator]
    return str(caught.value.reason)


def test_rows_are_found_by_line_and_blank_lines_are_none(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "rows.jsonl", [{"n": 0}, "", "   \r", {"n": 1}])
    file.write_bytes(file.read_bytes() + b'{"n": 2}')  # no newline at the end
    source = open_source(file)
    assert [source.read(i)["n"] for i in range(len(source))] == [0, 1, 2]
    assert [source.place(i) for i in range(3)] == ["rows.jsonl:1", "rows.jsonl:4", "rows.jsonl:5"]


@given(
    st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30), max_size=20),
    st.integers(1, 40),
)
@settings(max_examples=40, deadline=None)
def test_lines_are_found_wherever_blocks_are_cut(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], block: int
) -> None:
    file = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    write_lines(file, [{"t": text} for text in texts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_SCAN_BYTES", block)
        source = JsonLines(file)
    assert [source.read(i)["t"] for i in range(len(source))] == texts


def test_what_is_no_object_is_refused_by_name(tmp_path: Path) -> None:
    lines = [
        b"{'text': 'eval me'}",
        b"[1]",
        b'{"a": "\xff"}',
        b"[" * 200_000,
        b"x" * (10 << 20),
        b'{"ok": 1}',
    ]
    source = open_source(write_lines(tmp_path / "rows.jsonl", lines))
    assert [reason(source.read, i) for i in range(5)] == [
        Reason.NOT_JSON,
        Reason.NOT_AN_OBJECT,
        Reason.NOT_UTF8,
        Reason.NOT_JSON,
        Reason.LINE_TOO_LONG,
    ]
    assert source.read(5) == {"ok": 1}


def test_offsets_are_kept_until_the_file_changes(tmp_path: Path) -> None:
    file, index = write_lines(tmp_path / "rows.jsonl", [{"n": 0}]), tmp_path / "index.npz"
    first = JsonLines(file, index)
    seen: list[int] = []
    again = JsonLines(file, index, lambda done, total: seen.append(done))
    assert (again.digest, len(again), seen) == (first.digest, 1, [])
    write_lines(file, [{"n": 0}, {"n": 1}])
    changed = JsonLines(file, index)
    assert len(changed) == 2
    assert changed.digest != first.digest


def test_parquet_and_folders_read_as_one_data_set(tmp_path: Path) -> None:
    for part in range(2):
        table = pa.Table.from_pylist([{"text": f"{part}-{i}", "tokens": [i]} for i in range(5)])
        parquet.write_table(table, tmp_path / f"part-{part}.parquet", row_group_size=2)
    write_lines(tmp_path / "z.jsonl", [{"text": "last"}])
    source = open_source(tmp_path)
    assert [source.read(i)["text"] for i in range(len(source))] == [
        f"{p}-{i}" for p in range(2) for i in range(5)
    ] + ["last"]
    assert source.place(6) == "part-1.parquet:2"
    order = source.order(np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(11))
    assert order.tolist() != source.order(np.random.default_rng(1)).tolist()
    groups = [number // 2 for number in order.tolist() if number < 4]
    assert groups in ([0, 0, 1, 1], [1, 1, 0, 0])  # a row group is read once


@pytest.mark.parametrize("name", ["none.jsonl", "rows.csv", "broken.parquet", "empty"])
def test_what_cannot_be_a_data_set_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "rows.csv").write_text(json.dumps({}))
    (tmp_path / "broken.parquet").write_text("PAR1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput) as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value.field)


def test_a_damaged_row_group_ends_the_run_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    parquet.write_table(
        pa.Table.from_pylist([{"text": f"{i}" * 50} for i in range(200)]), file, compression="zstd"
    )
    data = bytearray(file.read_bytes())
    data[4:200] = bytes(196)
    file.write_bytes(data)
    with pytest.raises(InvalidInput, match="row group 0") as caught:
        open_source(file).read(0)
    assert caught.value.field == "rows.parquet"
