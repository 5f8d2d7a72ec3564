"""Stacks on loopback for load tests: `medmax serve` as a subprocess, and what can be seen of it from outside."""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from services.deployments.processes import Process, descendants

START_LIMIT_S = 900
STOP_LIMIT_S = 180
TRIES = 4
ROOT = Path(__file__).resolve().parent.parent
OWN = {"MEDMAX_REQUESTS_PER_MINUTE": "0"}
"""Environment of a stack of our own: no limit on requests a minute, since the load is what is asked for."""
TITLES = {
    "proxy": ("ray::ProxyActor", "ray::SERVE_PROXY_ACTOR"),
    "controller": ("ray::ServeController", "ray::SERVE_CONTROLLER_ACTOR"),
}
"""How the command lines of Serve's own processes begin."""


@dataclass(frozen=True)
class Target:
    """Where requests go: an HTTP address and a gRPC one (`host:port`), both on loopback."""

    http: str
    grpc: str


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

    @property
    def target(self) -> Target:
        return Target(self.http, self.grpc)

    def replicas(self, deployment: str) -> list[int]:
        """Process ids of a deployment's replicas."""
        return self.processes(deployment)

    def processes(self, kind: str) -> list[int]:
        """Ids of its processes of a kind: a deployment's replicas, `proxy` or `controller`."""
        names = TITLES.get(kind, (f"ray::ServeReplica:medmax:{kind}",))
        return [child.pid for child in descendants(self.process.pid) if title(child.pid).startswith(names)]

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
            start_new_session=True,  # Ctrl-C reaches the test, which then stops the stack in order
        )
    impatience = threading.Timer(START_LIMIT_S, process.kill)
    impatience.start()
    try:
        text = process.stdout.readline()
    except BaseException:
        process.terminate()
        raise
    finally:
        impatience.cancel()
    # Addresses are one line; an error is an indented document, after which the process ends.
    if not text.rstrip().endswith("}"):
        text += process.stdout.read()
        raise RuntimeError(f"medmax serve did not start:\n{text}{log.read_text()}")
    return Served(process, json.loads(text), folder / "data", log)


def title(pid: int) -> str:
    """A process's command line, empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def http_address(value: str) -> str:
    """An argument's HTTP address. Raises: argparse.ArgumentTypeError: none, or not of this machine."""
    parts = urlsplit(value)
    if parts.scheme != "http" or not parts.hostname:
        raise argparse.ArgumentTypeError("must be http://HOST:PORT")
    _check_loopback(parts.hostname)
    return value.rstrip("/")


def grpc_address(value: str) -> str:
    """An argument's `HOST:PORT`. Raises: argparse.ArgumentTypeError: none, or not of this machine."""
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError("must be HOST:PORT")
    _check_loopback(host.strip("[]"))
    return value


def _check_loopback(host: str) -> None:
    try:
        inside = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside:
        raise argparse.ArgumentTypeError("load goes to loopback alone")


@contextmanager
def own_stack(*arguments: str, **environment: str) -> Iterator[Served]:
    """A stack of our own on free ports, its data in a folder that goes with it."""
    chosen = {**OWN, **environment}
    with tempfile.TemporaryDirectory(prefix="load-", ignore_cleanup_errors=True) as folder:
        for left in reversed(range(TRIES)):
            try:
                served = start(Path(folder), "--http-port", "0", "--grpc-port", "0", *arguments, **chosen)
                break
            except RuntimeError as error:
                # Ray gives its node 30 s, whatever the machine has to do; there is no setting for it.
                if not left or "timed out during startup" not in str(error):
                    raise
        try:
            yield served
        finally:
            if served.process.poll() is None:
                served.stop()
