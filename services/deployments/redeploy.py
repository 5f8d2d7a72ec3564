"""How a running `medmax serve` is told to serve another model, and tells how far it is.

Two files below MEDMAX_DATA_DIR/serving/PORT, as a Kubernetes object has a specification and a status: `wanted.json`
is written by `medmax rollout`, `observed.json` by the stack. Both are the owner's alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from services.deployments.processes import Process, alive

MAX_BYTES = 64 << 10
WANTED, OBSERVED = "wanted.json", "observed.json"


@dataclass
class Wanted:
    """What shall be served.

    Attributes:
        generation: grows by one with every change.
        by: id of the roll-out; empty = as it started.
    """

    generation: int
    by: str
    checkpoint: str
    model_id: str
    vqgan: str = ""


@dataclass
class Observed:
    """What is served.

    Attributes:
        pid, started: of the stack's process.
        generation: of what was wanted, as far as the stack acted on it.
        status, message: Serve's, of the application.
        deployments: status of each by its name.
        refused: why the last change was not made; empty where it was.
    """

    pid: int
    started: int
    generation: int
    status: str = "RUNNING"
    message: str = ""
    deployments: dict[str, str] = field(default_factory=dict)
    refused: str = ""

    @property
    def alive(self) -> bool:
        return alive(Process(self.pid, self.started))

    @property
    def healthy(self) -> bool:
        well = all(status == "HEALTHY" for status in self.deployments.values())
        return self.status == "RUNNING" and well and not self.refused

    @property
    def failed(self) -> bool:
        return self.status == "DEPLOY_FAILED"


class Desk:
    """The two files of the stack that listens on `port`."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self.folder = data_dir / "serving" / str(port)

    def wanted(self) -> Wanted | None:
        found: Wanted | None = self._read(WANTED, Wanted)
        return found

    def observed(self) -> Observed | None:
        found: Observed | None = self._read(OBSERVED, Observed)
        return found

    def want(self, wanted: Wanted, instead_of: int | None) -> bool:
        """Writes what is wanted in place of that generation (None = of any); False where it is another already."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            now = self.wanted()
            if instead_of is not None and (now is None or now.generation != instead_of):
                return False
            self._write(WANTED, asdict(wanted))
        return True

    def observe(self, observed: Observed) -> None:
        self._write(OBSERVED, asdict(observed))

    def stamp(self) -> tuple[int, ...]:
        """Changes whenever one of the files does."""
        return tuple(self._mtime(name) for name in (WANTED, OBSERVED))

    def _mtime(self, name: str) -> int:
        try:
            return (self.folder / name).stat().st_mtime_ns
        except OSError:
            return 0

    def _read(self, name: str, kind: Any) -> Any:
        try:
            with (self.folder / name).open() as file:
                return kind(**json.loads(file.read(MAX_BYTES)))
        except (OSError, ValueError, TypeError):
            return None  # not there, or not ours

    def _write(self, name: str, value: dict[str, Any]) -> None:
        part = self.folder / f".{name}.{os.getpid()}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(value, file)
        part.replace(self.folder / name)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
