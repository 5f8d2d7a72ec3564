"""What is done to a stack, and undone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from loadtests.chaos.wire import Wire
from loadtests.stack import Served

SERVICES = ("gateway", "tokenizer", "llm", "decoder")
PROCESSES = (*SERVICES, "proxy", "controller")
"""Kinds of processes that a stack survives. Ray's own head (gcs, raylet) is not among them: with it the stack ends,
and whoever started it (systemd, KubeRay) starts it again."""


class Fault(Protocol):
    """Something goes wrong at `begin` and, after a while, is mended at `end`."""

    name: str
    lasts_s: float

    def begin(self) -> None: ...
    def end(self) -> None: ...


@dataclass
class Kill:
    """SIGKILL to every process of a kind."""

    served: Served
    kind: str
    lasts_s: float = 0.0

    @property
    def name(self) -> str:
        return f"kill {self.kind}"

    def begin(self) -> None:
        victims = self.served.processes(self.kind)
        if not victims:
            raise RuntimeError(f"there is no {self.kind} process to kill")
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Serve starts others."""


@dataclass
class Pause:
    """SIGSTOP to every process of a kind, SIGCONT after a while."""

    served: Served
    kind: str
    lasts_s: float = 6.0
    _victims: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"pause {self.kind}"

    def begin(self) -> None:
        self._victims = self.served.processes(self.kind)
        if not self._victims:
            raise RuntimeError(f"there is no {self.kind} process to pause")
        self._send(signal.SIGSTOP)

    def end(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        for pid in self._victims:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@dataclass
class FullDisk:
    """A file that takes what is left of a small file system, removed after a while."""

    folder: Path
    lasts_s: float = 5.0
    name: str = "full disk"

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def begin(self) -> None:
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                # Ever smaller pieces, so that not even a page is left.
                for size in (1 << 16, 1 << 12, 1):
                    with suppress(OSError):
                        while file.write(b"\0" * size):
                            continue
                raise OSError

    def end(self) -> None:
        self._ballast.unlink()


@dataclass
class Database:
    """The way to the database is cut, or nothing comes through it."""

    wire: Wire
    how: str
    lasts_s: float = 5.0

    @property
    def name(self) -> str:
        return f"database {self.how}"

    def begin(self) -> None:
        {"cut": self.wire.cut, "stalled": self.wire.stall}[self.how]()

    def end(self) -> None:
        self.wire.heal()


def strike(fault: Fault, sleep: Callable[[float], None] = time.sleep) -> None:
    """Begins it and, whatever happens, ends it."""
    try:
        fault.begin()
        sleep(fault.lasts_s)
    finally:
        fault.end()
