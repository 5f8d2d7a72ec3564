"""The examples run as they are, on the shipped model, and the demo leaves nothing behind."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.phantoms import Finding, analyse
from services.decoder.marking import is_synthetic
from tests.support.stack import ROOT, Served


def _run(script: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / script), *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_openai_example_answers_and_draws(stack: Served, tmp_path: Path) -> None:
    printed = _run("openai_client.py", str(tmp_path), MEDMAX_SERVER=stack.http)
    assert "asked:    yes" in printed
    drawn = (tmp_path / "openai.png").read_bytes()
    assert is_synthetic(drawn)
    assert Image.open(io.BytesIO(drawn)).size == (96, 96)


def test_the_grpc_example_streams_an_answer(stack: Served) -> None:
    printed = _run("grpc_client.py", MEDMAX_GRPC=stack.grpc)
    assert printed.startswith("pleural effusion")
    assert "interaction int_" in printed


def test_the_demo_asks_draws_interleaves_and_leaves_no_process(tmp_path: Path) -> None:
    printed = _run("demo.py", "--out", str(tmp_path), MEDMAX_DATA_DIR=str(tmp_path / "data"))
    assert "Shut down; no process left." in printed
    assert "pleural effusion" in printed
    for name in ("drawn.png", "interleaved-1.png"):
        assert is_synthetic((tmp_path / name).read_bytes())


def test_the_readme_names_only_commands_that_exist() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "services.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    readme = (ROOT / "README.md").read_text()
    named = {line.split()[1] for line in readme.splitlines() if line.startswith("medmax ")}
    assert {"ask", "draw", "chat", "doctor"} <= named
    assert [name for name in named if name not in help_text] == []
    targets = (ROOT / "Makefile").read_text()
    for line in readme.splitlines():
        if line.startswith("make "):
            assert f"\n{line.split()[1]}:" in targets, line


@pytest.mark.parametrize(
    ("name", "modality", "finding"),
    [
        ("chest", "chest_xray", Finding("pleural effusion", side="right", size="large")),
        ("brain", "brain_mri", Finding("tumor", side="left", size="large")),
        ("abdomen", "abdominal_ct", Finding("liver metastasis", count=3)),
        ("fundus", "fundus", Finding("hemorrhage", count=2)),
        ("histology", "histology", Finding("dilated gland", count=2)),
    ],
)
def test_the_bundled_pictures_show_what_their_readme_says(name: str, modality: str, finding: Finding) -> None:
    with Image.open(ROOT / "examples" / "pictures" / f"{name}.png") as picture:
        assert analyse(np.asarray(picture.convert("RGB")), modality) == (finding,)
