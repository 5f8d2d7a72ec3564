"""The whole stack on this machine, from its start to its last process gone."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from services import tracing_settings
from services.checkpoint import open_checkpoint
from services.config import Settings
from services.deployments.cluster import check_port, free_port, ray_cluster
from services.deployments.draining import drain
from services.deployments.processes import descendants, end
from services.deployments.redeployer import Redeployer, deploy
from services.errors import Unavailable
from services.gateway.access import Access
from services.gateway.auth import Gate
from services.interactions import InteractionStore
from services.llm.load import open_adapters

START_LIMIT_S = 900.0
STOP_LIMIT_S = 20.0
DRAIN_S = 30.0
POLL_S = 0.2
SPARE_CPUS = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stack:
    """Ray, Serve and the application, for one `with` block in the main thread. SIGINT and SIGTERM end `wait`.

    Args:
        settings: ports of 0 are replaced by free ones.

    Raises:
        ConfigurationError: a port is taken, or a setting is wrong.
        CheckpointError: the checkpoint or an adapter is missing or damaged.
        Unavailable: the database or the object store is out of reach.
    """

    def __init__(self, settings: Settings) -> None:
        host = settings.host
        self.settings = settings.model_copy(
            update={name: getattr(settings, name) or free_port(host) for name in ("http_port", "grpc_port")}
        )
        check_port(host, self.settings.http_port, "--http-port", "MEDMAX_HTTP_PORT")
        check_port(host, self.settings.grpc_port, "--grpc-port", "MEDMAX_GRPC_PORT")
        # What would fail in a replica, found here where it can be told at once; the database is migrated, too.
        tracing_settings.check()
        checkpoint = open_checkpoint(settings.checkpoint, settings.vqgan)
        Gate(settings)
        Access(settings)
        if settings.adapters and not settings.llm_address:
            open_adapters(settings, checkpoint)
        if settings.store:
            InteractionStore.open(settings).close()
        self.logs: Path | None = None
        self._stopping, self._hurry = threading.Event(), threading.Event()
        self._serving = False
        self._undo = ExitStack()

    @property
    def http_url(self) -> str:
        return f"http://{self._host}:{self.settings.http_port}"

    @property
    def grpc_address(self) -> str:
        return f"{self._host}:{self.settings.grpc_port}"

    @property
    def _host(self) -> str:
        return f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host

    def __enter__(self) -> Self:
        self._watch_signals()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Iterator[str]:
        """Brings everything up, and names each part when it is there. Ends early when a signal came.

        Raises:
            Unavailable: a deployment did not start; the message says where the logs are.
        """
        settings = self.settings
        scales = (settings.tokenizer, settings.llm, settings.decoder, settings.gateway)
        cpus = SPARE_CPUS + sum(scale.max_replicas * scale.num_cpus for scale in scales)
        self.logs = self._undo.enter_context(ray_cluster(settings, cpus))
        self._watch_signals()  # ray.init put its own in their place
        yield "Ray"
        self._deploy()
        yield "Ray Serve"
        yield from self._wait_for_deployments()

    def wait(self) -> None:
        """Until SIGINT or SIGTERM. Meanwhile the model may be changed by `medmax rollout`."""
        redeployer = Redeployer(self.settings)
        redeployer.begin()
        while not self._stopping.wait(POLL_S):
            redeployer.step()

    @property
    def stopping(self) -> bool:
        """A signal came."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Drains and ends every process of the stack."""
        processes = descendants()
        try:
            if self._serving:
                self._serving = False
                drain(DRAIN_S, self._hurry)
            with redirect_stdout(StringIO()):  # Ray reports there that its own shutdown interrupts it
                self._undo.close()
        finally:
            end(processes, STOP_LIMIT_S)

    def _watch_signals(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        """The first asks for an end, the second for one without waiting for answers."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def _deploy(self) -> None:
        from ray import serve
        from ray.serve.config import HTTPOptions, gRPCOptions

        from services.app import GRPC_SERVICES, LOGGING

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        settings = self.settings
        serve.start(
            proxy_location="HeadOnly",
            logging_config=LOGGING,
            http_options=HTTPOptions(host=settings.host, port=settings.http_port),
            grpc_options=gRPCOptions(port=settings.grpc_port, grpc_servicer_functions=GRPC_SERVICES),
        )
        self._undo.callback(serve.shutdown)
        deploy(settings)

    def _wait_for_deployments(self) -> Iterator[str]:
        from ray import serve

        from services.app import APPLICATION

        limit = time.monotonic() + START_LIMIT_S
        ready: set[str] = set()
        while not self.stopping:
            application: Any = serve.status().applications.get(APPLICATION)
            deployments = application.deployments if application else {}
            for name, deployment in deployments.items():
                if deployment.status == "HEALTHY" and name not in ready:
                    ready.add(name)
                    yield str(name)
            if application and application.status == "RUNNING":
                self._serving = True
                return
            if application and application.status in {"DEPLOY_FAILED", "UNHEALTHY"}:
                sick = ", ".join(name for name in deployments if name not in ready) or "the application"
                raise Unavailable(f"{sick} did not start; the reason is in {self.logs}/serve")
            if time.monotonic() > limit:
                raise Unavailable(f"not up after {START_LIMIT_S:.0f} s; the reason is in {self.logs}/serve")
            time.sleep(POLL_S)
