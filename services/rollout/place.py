"""Where a roll-out happens, by the command's options: a RayService, or the stack on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from services import config
from services.errors import InvalidInput
from services.rollout.evidence import Evidence
from services.rollout.meters import Meter, NoMeter, PageMeter, PrometheusMeter, check_url
from services.rollout.probe import Probe
from services.rollout.target import Ledger, Lock, Target

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
SUFFIX = "-rollout"
GATEWAY, METRICS, PROMETHEUS, SELECTOR, BLIND = "gateway", "metrics", "prometheus", "selector", "health-only"
Sources = dict[str, list[str]]


@dataclass(frozen=True)
class Place:
    """A target with its record and lock.

    Attributes:
        sources: of evidence, where none are given.
        local: on this machine.
    """

    target: Target
    ledger: Ledger
    lock: Lock
    sources: Sources
    local: bool


def place(
    rayservice: str, namespace: str, context: str, application: str, gateway: str, say: Callable[[str], None]
) -> Place:
    """Raises: InvalidInput: a name is none; ConfigurationError: no usable kubeconfig."""
    if rayservice:
        return _cluster(rayservice, namespace, context, application, say)
    if namespace or context:
        raise InvalidInput("needs --rayservice as well", field="namespace" if namespace else "context")
    from services.deployments.redeploy import Desk
    from services.rollout.local import FileLedger, FileLock, LocalStack

    settings = config.load()
    url = check_url(gateway or f"http://127.0.0.1:{settings.http_port}", "gateway")
    desk = Desk(settings.data_dir, httpx.URL(url).port or 80)
    return Place(
        LocalStack(desk, url),
        FileLedger(desk.folder),
        FileLock(desk.folder / "conductor.lock"),
        {GATEWAY: [url], METRICS: [f"{url.rstrip('/')}/metrics"]},
        local=True,
    )


def _cluster(name: str, namespace: str, context: str, application: str, say: Callable[[str], None]) -> Place:
    from services.rollout.cluster import Cluster
    from services.rollout.kept import ConfigMapLedger, LeaseLock
    from services.rollout.rayservice import RayService

    for field, value in (("rayservice", name), ("namespace", namespace)):
        if value and not NAME.fullmatch(value):
            raise InvalidInput("must be a name of Kubernetes: a-z 0-9 - .", field=field)
    cluster = Cluster(namespace, context, on_trouble=say)
    kept = f"{name}{SUFFIX}"
    return Place(
        RayService(cluster, name, application),
        ConfigMapLedger(cluster, kept),
        LeaseLock(cluster, kept),
        {SELECTOR: [f'namespace="{cluster.namespace}"']},
        local=False,
    )


def evidence(sources: Sources, shortest_s: float) -> Evidence:
    """From addresses; keys come from the environment: MEDMAX_API_KEY, MEDMAX_PROMETHEUS_TOKEN.

    Raises:
        InvalidInput: an address is none.
    """
    key = os.environ.get("MEDMAX_API_KEY", "")
    gateway = check_url(sources[GATEWAY][0], GATEWAY) if sources.get(GATEWAY) else ""
    pages = [check_url(url, METRICS) for url in sources.get(METRICS, [])]
    meter: Meter = NoMeter()
    if sources.get(BLIND):
        pass
    elif sources.get(PROMETHEUS):
        token = os.environ.get("MEDMAX_PROMETHEUS_TOKEN", "")
        url = check_url(sources[PROMETHEUS][0], PROMETHEUS)
        meter = PrometheusMeter(url, ",".join(sources.get(SELECTOR, [])), token, max(1, round(shortest_s)))
    elif pages:
        meter = PageMeter(tuple(pages), key)
    return Evidence(meter, Probe(gateway, key) if gateway else None)
