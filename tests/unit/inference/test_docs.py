"""The example of docs/open-inference.md, run as it stands against a real port."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from services.checkpoint import open_checkpoint
from services.config import Settings
from tests.unit.inference.conftest import Front

ROOT = Path(__file__).resolve().parents[3]


async def test_the_example_runs(front: Front, settings: Settings) -> None:
    import asyncio

    page = (ROOT / "docs" / "open-inference.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert code.count("127.0.0.1:9000") == 1
    code = code.replace("127.0.0.1:9000", front.address)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    config = open_checkpoint(settings.checkpoint).vq_config
    side = config.resolution
    assert done.stdout.strip() == f"(1, {config.n_codes_per_image}) (1, {side}, {side}, 3)"
