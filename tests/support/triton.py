"""A real Triton server as a subprocess of a test."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from services.deployments.cluster import free_port
from services.pb.inference import grpc_service_pb2 as pb
from services.pb.inference import grpc_service_pb2_grpc as stubs

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 300
STOP_LIMIT_S = 30


@dataclass
class Triton:
    """A running server.

    Attributes:
        address: of its gRPC port.
        log: what it wrote.
    """

    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def stop(self) -> None:
        """Ends it and the processes of its models."""
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def installation() -> Path:
    """Triton's folder; skips the test where scripts/setup_triton.sh has not put it there."""
    venv = ROOT / os.environ.get("MEDMAX_TRITON_VENV", ".venv-triton")
    found = list(venv.glob("lib/python*/site-packages/pytriton/tritonserver"))
    if not found or not (venv / ".medmax-triton").exists():
        pytest.skip(f"no Triton server in {venv.name}; scripts/setup_triton.sh puts one there")
    return found[0]


@contextmanager
def running(repository: Path, folder: Path, port: int = 0) -> Iterator[Triton]:
    """Triton with the models of `repository`, ready to answer.

    Args:
        folder: where it writes its log.
        port: of gRPC; 0 takes a free one.
    """
    triton, log = installation(), folder / "triton.log"
    port = port or free_port("127.0.0.1")
    libraries = [sysconfig.get_config_var("LIBDIR") or "", os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {
        **os.environ,
        # The stub's Python takes the environment of the first `python3` on the path, and this one's library.
        "PATH": os.pathsep.join([str(triton.parents[4] / "bin"), os.environ["PATH"]]),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "OMP_NUM_THREADS": "1",
        "MEDMAX_THREADS": "1",
    }
    command = [
        triton / "bin" / "tritonserver",
        f"--model-repository={repository}",
        f"--backend-directory={triton / 'backends'}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
        "--allow-http=false",
        "--allow-metrics=false",
        "--exit-timeout-secs=5",
        "--disable-auto-complete-config",
    ]
    with log.open("ab") as target:
        process = subprocess.Popen(command, env=environment, stdout=target, stderr=target, cwd=folder)
    server = Triton(process, f"127.0.0.1:{port}", log)
    try:
        _wait(server)
        yield server
    finally:
        server.stop()


def _wait(server: Triton) -> None:
    limit = time.monotonic() + START_LIMIT_S
    # It listens once its models are loaded; until then gRPC would try ever more rarely.
    options = [("grpc.max_reconnect_backoff_ms", 500)]
    with grpc.insecure_channel(server.address, options) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        while server.process.poll() is None and time.monotonic() < limit:
            try:
                if stub.ServerReady(pb.ServerReadyRequest(), timeout=1).ready:
                    return
            except grpc.RpcError:
                time.sleep(0.2)
    raise AssertionError(f"Triton did not start:\n{server.log.read_text(errors='replace')[-4000:]}")
