from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.llm.cpu import kept


def test_changed_sources_have_another_folder(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1\n")
    before = kept.digest(tmp_path)
    assert before == kept.digest(tmp_path)
    (tmp_path / "a.py").write_text("a = 2\n")
    assert kept.digest(tmp_path) != before


def test_code_is_kept_where_the_environment_says_or_beside_the_sources(tmp_path: Path) -> None:
    assert kept.folder_for("x", str(tmp_path / "wanted")) == tmp_path / "wanted" / "compiled-x"
    assert kept.folder_for("x", beside=tmp_path) == tmp_path / "__pycache__" / "compiled-x"


def test_without_a_folder_to_write_in_the_process_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the folders would be: no right of root's helps."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("HOME", str(blocked))
    folder = kept.folder_for("x", beside=blocked)
    assert os.stat(folder).st_mode & 0o077 == 0
    folder.rmdir()
