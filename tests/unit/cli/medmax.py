"""Runs `medmax` as people do: a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document that stdout must be."""
        return json.loads(self.out)  # type: ignore[no-any-return]


def medmax(
    folder: Path, *arguments: str, stdin: str = "", timeout: float = 120, **environment: str
) -> Result:
    """`medmax arguments…` in `folder`, where nothing but `environment` says how."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MEDMAX_")}
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        cwd=folder,
        env={
            **clean,
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
            "NO_COLOR": "1",
            "TERM": "dumb",
            **environment,
        },
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return Result(done.returncode, done.stdout, done.stderr)
