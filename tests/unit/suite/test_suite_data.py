"""Reading evaluation data: three formats, bad rows counted and named, pictures only from the data folder."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evaluation.scorers import Scorers
from evaluation.suite.data import MAX_LINE_BYTES, BadRow, EvalData
from evaluation.suite.example import Row
from evaluation.suite.phantom_data import write_phantom_data
from evaluation.suite.survey import Example, examples, survey
from evaluation.tasks import FAMILIES, all_tasks, chosen
from services.errors import InvalidInput

GOOD = {
    "task_name": "vqa_rad", "question_type": "closed", "prompt": "Is it?", "answer": "yes", "image_path": "a.png"
}  # fmt: skip


def folder_with(path: Path, lines: list[bytes]) -> Path:
    Image.new("RGB", (4, 4)).save(path / "a.png")
    (path / "eval.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "datasets"])
def test_every_format_gives_the_same_rows(tmp_path: Path, phantom_data: Path, kind: str) -> None:
    write_phantom_data(tmp_path / "data", 3, 1, kind)
    rows = list(EvalData.find(tmp_path / "data").rows())
    assert all(isinstance(row, Row) for row in rows)
    assert {row.prompt for row in rows if isinstance(row, Row)}
    write_phantom_data(tmp_path / "again", 3, 1)
    again = list(EvalData.find(tmp_path / "again").rows())
    assert [row.id for row in rows if isinstance(row, Row)] == [
        row.id for row in again if isinstance(row, Row)
    ]


def test_phantom_data_hold_every_task_and_their_truth_is_exact(phantom_data: Path) -> None:
    found: Counter[str] = Counter()
    for example in examples(EvalData.find(phantom_data), all_tasks(), None):
        assert isinstance(example, Example), example
        found[example.task.name] += 1
    assert found == {name: 16 if name == "probe_contradiction" else 8 for name in all_tasks()}


def test_bad_rows_are_counted_and_named_with_their_line_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = [
        line(), b"{not json", b"[1]", line(prompt=None), line(answer=3), line(image_path="b.png"),
        line(image_path="../a.png"), line(image_path="/etc/hostname"), b'{"x": "' + b"a" * MAX_LINE_BYTES + b'"}',
        line(answer="perhaps"), line(image_path=None), line(prompt="Is it not?"),
    ]  # fmt: skip
    data = EvalData.find(folder_with(tmp_path, lines))
    found = survey(data, all_tasks(), Scorers(), None, strict=False)
    assert found.examples["vqa_rad_closed"] == 2
    assert found.bad.total == 10
    assert found.bad.reasons == {
        "not_json": 1, "not_an_object": 1, "missing_field": 1, "wrong_type": 1, "picture_missing": 1,
        "picture_path": 2, "line_too_long": 1, "unfit_for_closed": 2,
    }  # fmt: skip
    assert found.bad.named[0] == "eval.jsonl:2: is not JSON"
    assert any(name.startswith("eval.jsonl:9:") for name in found.bad.named)


def test_strict_stops_at_the_first_bad_row_and_names_it(tmp_path: Path) -> None:
    data = EvalData.find(folder_with(tmp_path, [line(), b"{"]))
    with pytest.raises(InvalidInput, match="not JSON") as caught:
        survey(data, all_tasks(), Scorers(), None, strict=True)
    assert caught.value.field == "eval.jsonl:2"


def test_a_link_out_of_the_data_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    inside = tmp_path / "data"
    inside.mkdir()
    folder_with(inside, [line(image_path="link.png")])
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (bad,) = EvalData.find(inside).rows()
    assert isinstance(bad, BadRow)
    assert bad.reason == "picture_path"


def test_a_row_that_comes_twice_has_two_ids(tmp_path: Path) -> None:
    rows = [
        row for row in EvalData.find(folder_with(tmp_path, [line(), line()])).rows() if isinstance(row, Row)
    ]
    assert rows[1].id == f"{rows[0].id}-1"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda t: st.lists(t) | st.dictionaries(st.text(), t),
    )
)
def test_any_json_value_is_a_row_or_a_bad_row(value: Any) -> None:
    data = EvalData(Path("/nonexistent"), "jsonl", ())
    assert isinstance(data._checked("place", value), Row | BadRow)


def test_damaged_arrow_and_parquet_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(InvalidInput) as caught:
        list(EvalData.find(tmp_path).rows())
    assert caught.value.field == "x.parquet"
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "../../etc/passwd"}]}')
    with pytest.raises(InvalidInput, match="not there"):
        EvalData.find(tmp_path)


def test_nulls_in_parquet_are_missing_fields(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist([GOOD, {**GOOD, "prompt": None}])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    good, bad = EvalData.find(tmp_path).rows()
    assert isinstance(good, Row)
    assert bad == BadRow("rows.parquet:2", "missing_field", "prompt is missing")


def test_tasks_are_chosen_by_name_and_family() -> None:
    assert next(iter(chosen(["slake_open", "probe"]))) == "slake_open"
    assert len(chosen(["closed", "open", "mcq"])) == 12
    assert len(all_tasks()) == 24
    assert {task.family for task in all_tasks().values()} == set(FAMILIES)
    with pytest.raises(InvalidInput, match="no task or family 'nothing'"):
        chosen(["nothing"])


def test_the_published_table_is_whole() -> None:
    with_figures = [task for task in all_tasks().values() if task.published]
    assert len(with_figures) == 12
    mean = sum(task.published["MedMax-7B"] for task in with_figures) / 12
    assert round(mean, 1) == 65.5


def test_published_lengths() -> None:
    lengths = {"closed": 1, "open": 60, "mcq": 1, "captioning": 4096}
    row = Row("p", "0" * 16, "t", "q", "prompt", "yes", Path("a.png"))
    for task in all_tasks().values():
        if task.family in lengths:
            assert task.ask(row).max_new_tokens == lengths[task.family], task.name


def test_a_visual_chat_answer_may_be_a_python_literal_and_nothing_of_it_is_run() -> None:
    task = all_tasks()["visual_chat"]
    answer = "{'gpt4_answer': 'A heart.', 'fig_caption': 'Film', 'domain': {'mri': False}}"
    row = Row("p", "0" * 16, "visual_chat", "conversation", "What?\n<image>", answer, Path("a.png"))
    assert task.truth(row).text == "A heart."
    assert task.truth(row).context == "Film"
    assert task.ask(row).parts == ("What?", Path("a.png"))
    odd = Row(
        "p", "0" * 16, "visual_chat", "conversation", "What?", "{__import__('os').getcwd()}", Path("a.png")
    )
    assert task.truth(odd).text == odd.answer
