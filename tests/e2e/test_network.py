"""What listens, and where."""

import os
import subprocess
import sys
from pathlib import Path

from services.deployments.processes import descendants
from tests.support.stack import LOOPBACK, ROOT, Served, listening


def test_nothing_of_the_stack_listens_beyond_loopback(stack: Served) -> None:
    pids = {stack.process.pid} | {process.pid for process in descendants(stack.process.pid)}
    sockets = listening(pids)
    ports = {port for _, port in sockets}
    assert int(stack.http.rsplit(":", 1)[1]) in ports
    assert int(stack.grpc.rsplit(":", 1)[1]) in ports
    assert not {socket for socket in sockets if socket[0] not in LOOPBACK}


def test_a_busy_port_is_named_before_anything_starts(stack: Served) -> None:
    port = stack.http.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "serve", "--http-port", port, "--grpc-port", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert port in done.stderr
    assert "--http-port" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_database_is_told_before_anything_starts(model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "serve", "--http-port", "0", "--grpc-port", "0"],
        cwd=ROOT,
        env={
            **os.environ,
            "MEDMAX_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/x",
            "MEDMAX_CHECKPOINT": str(model),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "database" in done.stderr
    assert "Ray" not in done.stderr
    assert "Traceback" not in done.stderr


def test_listening_beyond_loopback_needs_keys() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "serve", "--host", "0.0.0.0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "MEDMAX_API_KEYS" in done.stderr
