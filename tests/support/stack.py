"""Real servers as subprocesses of a test: `medmax serve …`, and what can be seen of them from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from services.config import SHIPPED_MODEL
from services.deployments.processes import Process, descendants
from tests.support.tiny import tiny_checkpoint

START_LIMIT_S = 400
STOP_LIMIT_S = 180
ROOT = Path(__file__).resolve().parents[2]


def checkpoint(folder: Path) -> Path:
    """The shipped model; a tiny random one where it is not there."""
    if (SHIPPED_MODEL / "config.json").exists():
        return SHIPPED_MODEL
    return tiny_checkpoint(folder, max_position_embeddings=512)


@dataclass
class Served:
    """A running `medmax serve`.

    Attributes:
        facts: the JSON document it printed.
        data: its data folder.
    """

    process: subprocess.Popen[str]
    facts: dict[str, Any]
    data: Path
    log: Path
    children: set[Process] = field(default_factory=set)

    @property
    def http(self) -> str:
        return str(self.facts["http"])

    @property
    def grpc(self) -> str:
        return str(self.facts["grpc"])

    def replicas(self, deployment: str) -> list[int]:
        """Process ids of a deployment's replicas."""
        name = f"ray::ServeReplica:medmax:{deployment}"
        return [child.pid for child in descendants(self.process.pid) if title(child.pid).startswith(name)]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to stop; returns its exit status."""
        self.children = descendants(self.process.pid)
        self.process.send_signal(number)
        return self.process.wait(STOP_LIMIT_S)

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of `name` that have `labels`."""
        total = 0.0
        for line in httpx.get(f"{self.http}/metrics", trust_env=False).text.splitlines():
            sample = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if sample and sample[1] == name:
                found = dict(re.findall(r'(\w+)="([^"]*)"', sample[2] or ""))
                if labels.items() <= found.items():
                    total += float(sample[3])
        return total

    def stored_ids(self) -> list[str]:
        """Ids of the interactions in its database."""
        with sqlite3.connect(f"file:{self.data / 'medmax.sqlite3'}?mode=ro", uri=True) as database:
            return [row[0] for row in database.execute("SELECT id FROM interactions")]


def start(folder: Path, *arguments: str, **environment: str) -> Served:
    """Runs `medmax serve --json …` with its data below `folder` until it says where it listens."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "stderr.log"
    env = {**os.environ, "MEDMAX_DATA_DIR": str(folder / "data"), "OMP_NUM_THREADS": "1", **environment}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "serve", *arguments, "--json"],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    impatience = threading.Timer(START_LIMIT_S, process.kill)
    impatience.start()
    text = process.stdout.readline()
    impatience.cancel()
    if not text:
        raise AssertionError(f"medmax serve did not start:\n{log.read_text()}")
    return Served(process, json.loads(text), folder / "data", log)


def running(folder: Path, *arguments: str, **environment: str) -> Iterator[Served]:
    """As `start`, stopped at the end: the body of a fixture."""
    served = start(folder, *arguments, **environment)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.stop()
        assert not [title(child.pid) for child in served.children if title(child.pid)], "a process is left"


def title(pid: int) -> str:
    """A process's command line, empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


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
