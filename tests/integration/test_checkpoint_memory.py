"""Memory of loading, measured in a process of its own on a checkpoint of two gigabytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.checkpoint import Layout, ModelConfig
from services.checkpoint.convert import convert
from tests.support.generated import generated
from tests.support.tiny import tiny_vq_config

GB = 10**9
CONFIG = ModelConfig(
    vocab_size=16384,
    hidden_size=2048,
    num_hidden_layers=20,
    num_attention_heads=16,
    num_key_value_heads=16,
    intermediate_size=5504,
    max_position_embeddings=4096,
)
MEASURE = """
import json, sys, torch
from services.checkpoint import open_checkpoint
from services.llm.load import load_state
from services.llm.runner import Runner
torch.set_num_threads(1)
checkpoint, what = open_checkpoint(sys.argv[1]), sys.argv[2]
if what == "model":
    kept = Runner(checkpoint.config, load_state(checkpoint, dtype=torch.bfloat16))
    size = (kept.parameters + kept.embedding.numel() + kept.head.numel()) * 2
else:
    rank, ranks = map(int, what.split("/"))
    kept = dict(checkpoint.slices(rank, ranks))
    size = sum(t.nbytes for t in kept.values())
peak = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
print(json.dumps({"kept": size, "peak": peak}))
"""


@pytest.fixture(scope="module", params=[Layout.META, Layout.HUGGING_FACE, Layout.OWN])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("large")
    if shutil.disk_usage(folder).free < 8 * GB:
        pytest.skip("under 8 GB of disk are free")
    convert(generated(CONFIG, tiny_vq_config()), folder / "checkpoint", request.param)
    yield folder / "checkpoint"
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_loading_takes_what_is_kept_and_less_than_a_gigabyte_more(directory: Path) -> None:
    for what in ("model", "1/2", "3/4"):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(directory), what],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        print(what, found)
        assert found["kept"] > (1.9 * GB if what == "model" else 0.45 * GB)
        assert found["peak"] < found["kept"] + GB, (what, found)
