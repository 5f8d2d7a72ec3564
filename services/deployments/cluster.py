"""A Ray of this machine's own for the serving stack: on loopback, small, silent, gone when we are.

The environment must be set before `ray` is imported anywhere in the process, since Ray reads it then; Ray's
processes inherit it.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.config import Settings
from services.errors import ConfigurationError, InternalError

RAY_IMPORTED_TOO_EARLY = "ray was imported before the stack's environment was set"


def environment(settings: Settings, metrics_dir: Path) -> dict[str, str]:
    """Environment variables of the stack's processes."""
    message_bytes = str(min(2 * settings.max_request_bytes, 2**31 - 1))
    chosen = {
        "MEDMAX_HOST": settings.host,
        "MEDMAX_METRICS_DIR": str(metrics_dir),
        # Quiet, and nothing leaves the machine.
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Replicas and proxies are workers to Ray, which would run them at nice 15, for batch jobs that fill a machine.
        "RAY_worker_niceness": "0",
        # Ray's own ports want a token, a fresh one for every run.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Calls between deployments go over gRPC on the replica's own event loop: half the time of actor calls.
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": message_bytes,
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": message_bytes,
        # A lost proxy is replaced after three of these periods, 10 s each by default.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        # A new proxy that is not ready in this time is killed, which ends `serve.start`: 5 s by default, too short for
        # its imports on a busy machine.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "services.deployments.proxy:prepare",
    }
    if settings.loopback:
        # Ray's switch for a single machine: every process of it binds to loopback.
        chosen["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    return chosen


def free_port(host: str) -> int:
    """A port that was free a moment ago."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def check_port(host: str, port: int, option: str, variable: str) -> None:
    """Raises: ConfigurationError when something listens on `port` already; says how to choose another."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another port with {option} or {variable}",
                field=variable,
            ) from None


@contextmanager
def ray_cluster(settings: Settings, cpus: float) -> Iterator[Path]:
    """Ray with room for `cpus` logical CPUs at least, until the block ends.

    Yields:
        Folder of Ray's logs.

    Raises:
        ConfigurationError: Ray's folder cannot be used.
    """
    if "ray" in sys.modules:
        raise InternalError(RAY_IMPORTED_TOO_EARLY)
    root = _folder(settings)
    metrics_dir = Path(tempfile.mkdtemp(prefix="metrics-", dir=root))
    os.environ.update(environment(settings, metrics_dir))
    import ray

    try:
        context: Any = ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, math.ceil(cpus)),
            object_store_memory=settings.ray_object_store_bytes,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(root),
        )
        yield Path(context.address_info["session_dir"]) / "logs"
    finally:
        ray.shutdown()
        shutil.rmtree(metrics_dir, ignore_errors=True)


def _folder(settings: Settings) -> Path:
    # Unix sockets below it may have 107 characters in all, so the default is short.
    root = Path(settings.ray_dir or Path(tempfile.gettempdir()) / f"medmax-{os.getuid()}")
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot use {root}: {error.strerror}", field="MEDMAX_RAY_DIR") from None
    if root.stat().st_uid != os.getuid():
        raise ConfigurationError(f"{root} belongs to someone else", field="MEDMAX_RAY_DIR")
    return root
