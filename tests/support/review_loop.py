"""The controller as a process, and experts who work through Label Studio's own API while it runs or is down."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from annotation.core import Kind, Verdict
from annotation.labelstudio.http import Connection
from annotation.labelstudio.server import Login, Server
from annotation.loop import steps
from annotation.loop.context import Loop
from annotation.loop.settings import load_review
from annotation.store import Entry, State
from services.config import ROOT, Settings, load
from services.errors import MedMaxError
from tests.support.review import Script, submitted


def free_port() -> int:
    """Label Studio keeps the webhook's address, so a controller that is started again must have the same."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Site:
    """An installation below a folder: settings of the review in a file, as a hospital has them."""

    folder: Path
    values: dict[str, Any]

    @property
    def base(self) -> Settings:
        return load(data_dir=self.folder / "var")

    @property
    def config(self) -> Path:
        path = self.folder / "review.yaml"
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(self.values))
        return path

    def opened(self) -> Loop:
        settings = load_review(self.config)
        return Loop(settings, self.base, public_url=f"http://127.0.0.1:{settings.port}")

    def environment(self, **more: str) -> dict[str, str]:
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
        return {
            **os.environ,
            "PYTHONPATH": path,
            "MEDMAX_DATA_DIR": str(self.folder / "var"),
            "MEDMAX_REVIEW_CONFIG": str(self.config),
            "MEDMAX_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            **more,
        }

    @property
    def log(self) -> Path:
        """The controller's."""
        return self.folder / "controller.log"

    @contextmanager
    def forked(self, **environment: str) -> Iterator[Any]:
        """`medmax review run` in a process that is forked from one where all is imported: that takes a tenth of the time."""
        _SERVER.set_forkserver_preload(_PRELOADED)
        # A child inherits the standard streams of the server, which are not ours to give it.
        process = _SERVER.Process(
            target=_controller, args=(self.environment(**environment), str(self.log)), daemon=True
        )
        process.start()
        try:
            yield process
        finally:
            process.kill()
            process.join()

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """`medmax review run`, its log below the folder."""
        log = self.log.open("a")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "services.cli", "review", "run", "--json", *arguments],
                env=self.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """Until its server answers; ended by SIGTERM, which must be clean."""
        process = self.start()
        try:
            wait_for(self.answers, 300, "the controller answers", process)
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(180) == 0, self.log.read_text()[-2000:]

    def answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.values['port']}/healthz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def review(self, *arguments: str) -> Any:
        """The JSON document of `medmax review ARGUMENTS --json`."""
        done = subprocess.run(
            [sys.executable, "-m", "services.cli", "review", *arguments, "--json"],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


_SERVER: Any = multiprocessing.get_context("forkserver")
_PRELOADED = [
    "annotation.cli",
    "annotation.dataset.build",
    "annotation.labelstudio.client",
    "annotation.loop.controller",
    "annotation.loop.item",
    "rapidocr",
    *(f"{steps.__name__}.{name}" for name in steps.STEPS),
]


def _controller(environment: dict[str, str], log: str) -> None:
    """In a process of its own."""
    from services.cli import main

    os.environ.clear()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["medmax", "review", "run", "--json"]
    main()


def wait_for(
    condition: Callable[[], bool], seconds: float, what: str, process: subprocess.Popen[str] | None = None
) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, f"the process ended before: {what}"
        assert time.monotonic() < limit, f"not within {seconds} s: {what}"
        time.sleep(1)


def count(loop: Loop, *states: State) -> int:
    found = loop.store.figures.counts()
    return sum(n for state in states for n in found.get(state, {}).values())


def entries(loop: Loop, *states: State) -> list[Entry]:
    return [entry for state in states for entry in loop.store.items.page(state, limit=10_000)]


@dataclass
class Panel:
    """Experts with accounts of Label Studio.

    Attributes:
        said: what was submitted: (expert, item's key, verdict, Label Studio's number).
        connections: of the experts who submitted something.
    """

    server: Server
    script: Script
    logins: dict[str, Login]
    said: list[tuple[str, str, Verdict, int]] = field(default_factory=list)
    connections: dict[str, Connection] = field(default_factory=dict)

    @classmethod
    def enrol(cls, server: Server, names: list[str]) -> dict[str, Login]:
        """New users; their logins by Label Studio's id."""
        found = {}
        tag = os.urandom(3).hex()  # the server's database may be an older one
        for name in names:
            login = server.add_expert(f"{name}-{tag}@hospital.example", "a long password")
            connection = Connection(server.url, login.token)
            found[str(connection.get("/api/current-user/whoami")["id"])] = login
            connection.close()
        return found

    def submit(self, expert: str, key: str, task: int) -> int:
        """What the expert's browser sends. Label Studio may be busy: a person would press the button again."""
        kind, _, id = key.partition(":")
        verdict = self.script.says(expert, id, Kind(kind))
        if expert not in self.connections:
            self.connections[expert] = Connection(self.server.url, self.logins[expert].token, timeout_s=60)
        body = {"result": submitted(verdict, Kind(kind)), "lead_time": 20.0}
        number = int(self.connections[expert].post(f"/api/tasks/{task}/annotations/", body)["id"])
        self.said.append((expert, key, verdict, number))
        return number

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()

    def work(self, loop: Loop, experts: list[str], at_most: int = sys.maxsize) -> int:
        """Every expert takes the next item and annotates it, in turns, until nobody gets one; how many."""
        done, busy = 0, True
        while busy:
            busy = False
            for expert in experts:
                if done >= at_most:
                    return done
                try:
                    held = loop.desk.next_item(expert)
                except MedMaxError:
                    continue
                if held is not None:
                    self.submit(expert, held.item, held.task)
                    done, busy = done + 1, True
        return done
