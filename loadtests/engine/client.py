"""Worker processes from the side of whoever asks them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from loadtests.engine.jobs import Job, Options, Outcome

ROOT = Path(__file__).resolve().parents[2]
VLLM_VENV = Path(os.environ.get("MEDMAX_VLLM_VENV", ROOT / ".venv-vllm"))
LOAD_S, JOB_S, CLOSE_S = 600.0, 3600.0, 20.0
_WHY_CHARS = 200


@dataclass(frozen=True)
class Kind:
    """An engine that can be measured: the module below `engines`, the interpreter that runs it, what to say without."""

    module: str
    python: Path = Path(sys.executable)
    missing: str = ""


KINDS = {
    "ours": Kind("ours"),
    "transformers-generate": Kind("transformers_generate"),
    "transformers-generate-batch": Kind("transformers_batch"),
    "transformers-guided": Kind("transformers_guided"),
    "vllm": Kind("vllm", VLLM_VENV / "bin" / "python", "no environment .venv-vllm; make bench-peers"),
}


class NotRun(Exception):
    """The engine is not there, or failed; the message says why."""


class Worker:
    """One engine with one model; the process ends with `close`, and is of no use after `NotRun`."""

    def __init__(self, name: str, log: Path) -> None:
        """
        Args:
            log: file for what the process prints.

        Raises:
            NotRun: its environment does not exist.
        """
        kind = KINDS[name]
        if not kind.python.exists():
            raise NotRun(kind.missing or f"{kind.python} is missing")
        self.name, self.version, self._log = name, "", log
        self._answers: queue.Queue[str | None] = queue.Queue()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [kind.python, "-m", "loadtests.engine.worker", kind.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        assert self._process.stdout is not None
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    @property
    def session(self) -> int:
        """Id of the session of all its processes."""
        return self._process.pid

    def load(self, options: Options) -> None:
        """Raises: NotRun."""
        self._send(asdict(options))

    def wait_loaded(self) -> None:
        """Raises: NotRun: it did not load."""
        self.version = str(self._receive(LOAD_S)["version"])

    def run(self, job: Job) -> Outcome:
        """Raises: NotRun: it failed, or took more than an hour."""
        self._send(job.to_json())
        return Outcome.from_json(self._receive(JOB_S))

    def close(self) -> None:
        """End the process and those that it started."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_S)
        # Its session is its own: nothing else is in the group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            self._answers.put(line)
        self._answers.put(None)

    def _send(self, values: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        # A process that is gone says why in its last answer or its log.
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise NotRun(f"no answer within {timeout_s:.0f} s") from None
        if line is None:
            raise NotRun(last_words(self._log.read_text(errors="replace")) or "the process ended")
        values: dict[str, Any] = json.loads(line)
        if "error" in values:
            raise NotRun(" ".join(values["error"].split())[:_WHY_CHARS])
        return values


def last_words(log: str) -> str:
    """The last line of a log that tells of an error, or the last of all; without terminal colours."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", log).splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Killed)\b", line)]
    return (errors or lines or [""])[-1][:_WHY_CHARS]
