"""Our own commands as subprocesses of a step: one at a time in a folder, ended with the controller, gone on with later."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from annotation.loop.context import Loop
from services.config import Settings
from services.errors import InternalError, Overloaded, Unavailable

_GRACE_S = 20.0
_POLL_S = 0.5
_TAIL = 4_000


def medmax(loop: Loop, folder: Path, *arguments: str) -> dict[str, Any]:
    """The JSON document of `medmax ARGUMENTS --json`, whose log is `folder/log.txt`.

    The child holds the folder's lock, so one whose controller was killed is waited for and never doubled.

    Raises:
        Overloaded: a child of an earlier controller still works in this folder.
        Unavailable: the controller stops; the same call goes on later.
        InternalError: the command failed; the message holds its error, which names no patient.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Overloaded("an earlier run still works in this folder", retry_after_s=10) from None
        with (folder / "log.txt").open("ab") as log, (folder / "out.json").open("w+b") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.cli", *arguments, "--json"],
                env=_environment(loop.base),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
            _wait(loop, process)
            out.seek(0)
            text = out.read()
    try:
        found = json.loads(text)
    except ValueError:
        found = {}
    if process.returncode or "error" in found:
        error = found.get("error") or {}
        raise InternalError(
            f"medmax {' '.join(arguments[:2])} failed with status {process.returncode} "
            f"({error.get('code', 'no document')}: {str(error.get('message', ''))[:300]}); see log.txt in {folder.name}"
        )
    return dict(found)


def _wait(loop: Loop, process: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            process.wait(_POLL_S)
            return
        except subprocess.TimeoutExpired:
            if loop.stopping.is_set():
                _end(process)
                raise Unavailable("the controller stops", retry_after_s=1) from None


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole session of the child; what it saved is gone on with."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(base: Settings) -> dict[str, str]:
    """Ours, without what is of the review and of Label Studio alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEDMAX_REVIEW_")}
    return kept | {"MEDMAX_DATA_DIR": str(base.data_dir.absolute()), "PYTHONUNBUFFERED": "1"}


def options(values: Sequence[tuple[str, object]]) -> list[str]:
    """`--name value` for each that is not None."""
    return [text for name, value in values if value is not None for text in (name, str(value))]
