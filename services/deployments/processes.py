"""Processes, read from /proc."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

POLL_S = 0.05


class Process(NamedTuple):
    """A process, told apart from a later one with the same id by its start time (clock ticks since boot)."""

    pid: int
    started: int


def descendants(root: int | None = None) -> set[Process]:
    """Children of `root` (this process), their children, and so on."""
    parents: dict[int, tuple[int, Process]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := _read(int(entry.name))):
            parents[found[1].pid] = found
    below = {root or os.getpid()}
    result: set[Process] = set()
    while True:
        more = {process for parent, process in parents.values() if parent in below} - result
        if not more:
            return result
        result |= more
        below = {process.pid for process in more}


def running() -> set[Process]:
    """Every process of this machine (of this container, inside of one)."""
    found = (_read(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {each[1] for each in found if each}


def arguments(process: Process) -> list[str]:
    """Its command line, or the title that it gave itself; empty for one that is gone."""
    try:
        line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return []
    found = _read(process.pid)
    same = found is not None and found[1] == process
    return line.decode(errors="replace").rstrip("\0").split("\0") if same else []


def end(processes: Iterable[Process], patience_s: float) -> list[int]:
    """Waits for `processes` to be gone and kills those still there after `patience_s`; returns the killed ids."""
    limit = time.monotonic() + patience_s
    left = [process for process in processes if alive(process)]
    while left and time.monotonic() < limit:
        time.sleep(POLL_S)
        left = [process for process in left if alive(process)]
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    return [process.pid for process in left]


def alive(process: Process) -> bool:
    """Whether it runs still."""
    found = _read(process.pid)
    return found is not None and found[1] == process


def this() -> Process:
    """This process."""
    found = _read(os.getpid())
    assert found is not None  # it reads about itself
    return found[1]


def _read(pid: int) -> tuple[int, Process] | None:
    """Parent and process, or None for one that is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else (int(fields[1]), Process(pid, int(fields[19])))
