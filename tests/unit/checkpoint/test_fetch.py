"""A checkpoint is fetched whole and right, or not at all."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from services.checkpoint import open_checkpoint
from services.checkpoint.fetch import fetch
from services.errors import CheckpointError, ConfigurationError, Unavailable
from tests.support.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def digest(source: Path) -> str:
    return open_checkpoint(source).digest


def _left(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_from_a_folder_and_from_a_store(source: Path, digest: str, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{source}/", "/bucket/model/", recursive=True)
    for name, address in [("a", str(source)), ("b", "memory://bucket/model"), ("c", f"file://{source}/")]:
        assert fetch(address, tmp_path / name, digest) is True
        assert open_checkpoint(tmp_path / name).digest == digest
    assert _left(tmp_path) == ["a", "b", "c"]
    memory.rm("/bucket", recursive=True)


def test_what_is_there_is_not_fetched_again(source: Path, digest: str, tmp_path: Path) -> None:
    fetch(str(source), tmp_path / "model", digest)
    assert fetch("s3://not/asked", tmp_path / "model", digest) is False


def test_another_checkpoint_is_refused_and_leaves_nothing(source: Path, digest: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"--digest.*{digest}"):
        fetch(str(source), tmp_path / "model", "0" * 64)
    assert _left(tmp_path) == []
    fetch(str(source), tmp_path / "model", digest)
    with pytest.raises(CheckpointError, match="--digest"):
        fetch(str(source), tmp_path / "model", "0" * 64)
    assert open_checkpoint(tmp_path / "model").digest == digest


def test_a_checkpoint_without_a_part_leaves_nothing(source: Path, digest: str, tmp_path: Path) -> None:
    fetch(str(source), tmp_path / "half", digest)
    (tmp_path / "half" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        fetch(str(tmp_path / "half"), tmp_path / "out" / "model", digest)
    assert _left(tmp_path / "out") == []


def test_what_a_killed_fetch_left_is_removed(source: Path, digest: str, tmp_path: Path) -> None:
    (tmp_path / ".model-abc").mkdir()
    (tmp_path / ".model-abc" / "model.safetensors").write_bytes(b"half")
    fetch(str(source), tmp_path / "model", digest)
    assert _left(tmp_path) == ["model"]


def test_what_is_wrong_is_named(source: Path, digest: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--digest: must be 64"):
        fetch(str(source), tmp_path / "model", "abc")
    with pytest.raises(ConfigurationError, match="SRC: is no address"):
        fetch("gopher://x/y", tmp_path / "model", digest)
    with pytest.raises(Unavailable, match="SRC: cannot be read"):
        fetch(str(tmp_path / "nothing"), tmp_path / "model", digest)
    assert _left(tmp_path) == []
