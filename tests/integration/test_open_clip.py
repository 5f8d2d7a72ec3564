"""CLIP-type scores from open_clip's folders, with open_clip itself and small random weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("open_clip")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.open_clip_model", str(ROOT / ".venv-openclip"), str(out)],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("tower", ["native", "bert"])
def test_an_open_clip_folder_gives_the_embeddings_of_the_model_in_it(
    found: dict[str, Any], tower: str
) -> None:
    assert min(found[tower]["agree"]) > 0.999
    assert found[tower]["apart"] < 0.999


@pytest.mark.parametrize("tower", ["native", "bert"])
def test_a_caption_scores_the_cosine_with_its_picture(found: dict[str, Any], tower: str) -> None:
    assert found[tower]["score"] == pytest.approx(found[tower]["expected"], abs=1e-6)


def test_a_damaged_folder_is_named_and_not_scored(found: dict[str, Any]) -> None:
    assert found["damaged"].startswith("native cannot be loaded: ")
