"""Real servers as subprocesses of a test: `medmax serve …`, and what can be seen of them from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadtests.stack import ROOT, Served, start, title
from services.config import SHIPPED_MODEL
from tests.support.tiny import tiny_checkpoint

__all__ = ["LOOPBACK", "ROOT", "Served", "checkpoint", "listening", "running", "start", "title", "wait_until"]


def checkpoint(folder: Path) -> Path:
    """The shipped model; a tiny random one where it is not there."""
    if (SHIPPED_MODEL / "config.json").exists():
        return SHIPPED_MODEL
    return tiny_checkpoint(folder, max_position_embeddings=512)


def running(folder: Path, *arguments: str, **environment: str) -> Iterator[Served]:
    """As `start`, stopped at the end: the body of a fixture."""
    served = start(folder, *arguments, **environment)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.stop()
        assert not [title(child.pid) for child in served.children if title(child.pid)], "a process is left"


def listening(pids: set[int]) -> set[tuple[str, int]]:
    """Address (hex as the kernel writes it) and port of every TCP socket on which one of `pids` listens."""
    inodes = set()
    for pid in pids:
        try:
            links = list(Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            continue
        for link in links:
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and columns[9] in inodes:
                address, port = columns[1].split(":")
                found.add((address, int(port, 16)))
    return found


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def wait_until(condition: Any, seconds: float, what: str) -> None:
    """Polls until `condition()` is true."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not within {seconds} s: {what}"
        time.sleep(0.1)
