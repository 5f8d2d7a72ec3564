"""Plays KubeRay on a RayService: writes status through the status subresource, as the script for a model says.

It uses the same client against whatever API server there is, so it works on a real one too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kubernetes.client import ApiException, CustomObjectsApi
from urllib3.exceptions import HTTPError

from services.rollout.rayservice import GROUP, MERGE_PATCH, PLURAL, VERSION
from services.rollout.serve_config import version_in

APPLICATION = "medmax"
DEPLOYMENTS = ("gateway", "tokenizer", "llm", "decoder")
Object = dict[str, Any]


@dataclass
class KubeRay:
    """
    Attributes:
        scripts: by the last part of a checkpoint's path: `well` (default), `never` ready, `fails` to deploy,
            `falls` ill once it was ready.
        serving: checkpoint that answers requests now.
    """

    api: CustomObjectsApi
    namespace: str
    name: str
    scripts: dict[str, str] = field(default_factory=dict)
    step_s: float = 0.25
    serving: str = ""
    _clusters: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def where(self) -> Object:
        return {
            "group": GROUP,
            "version": VERSION,
            "namespace": self.namespace,
            "plural": PLURAL,
            "name": self.name,
        }

    def read(self) -> Object:
        found: Object = self.api.get_namespaced_custom_object(**self.where)
        return found

    def status(self, **fields: Any) -> None:
        body = {"status": fields}
        self.api.patch_namespaced_custom_object_status(**self.where, body=body, _content_type=MERGE_PATCH)

    def install(self) -> None:
        """The state of a service that runs."""
        found = self.read()
        self.serving = _checkpoint(found)
        self.status(
            observedGeneration=found["metadata"]["generation"],
            serviceStatus="Running",
            numServeEndpoints=2,
            activeServiceStatus=_part("cluster-0", "RUNNING"),
        )

    def run(self) -> None:
        """Until `stop`: one pass after another, as a controller does."""
        seen = self.read()["metadata"]["generation"]
        active = self.read()["spec"]["rayClusterConfig"]
        while not self._stop.wait(0.05):
            try:
                found = self.read()
                generation = found["metadata"]["generation"]
                if generation == seen:
                    continue
                config = found["spec"]["rayClusterConfig"]
                if config == active:
                    self.status(pendingServiceStatus=None)  # one that is not wanted any more goes
                for _ in self._in_place(found) if config == active else self._replace(found):
                    if self._stop.wait(self.step_s) or self.read()["metadata"]["generation"] != generation:
                        break
                seen = generation  # only now: what the server was away for is done again
                if self.serving == _checkpoint(found):
                    active = config
            except (ApiException, HTTPError, OSError):
                continue  # the server is away; a controller tries again

    def stop(self) -> None:
        self._stop.set()

    def _in_place(self, found: Object) -> Iterator[None]:
        checkpoint = _checkpoint(found)
        script = self.scripts.get(checkpoint.rpartition("/")[2], "well")
        # KubeRay reads Serve's status before it submits the new text: the first status still tells of the old one.
        self.status(observedGeneration=found["metadata"]["generation"])
        yield
        cluster = found["status"]["activeServiceStatus"]["rayClusterName"]
        self.status(activeServiceStatus=_part(cluster, "DEPLOYING", llm="UPDATING"))
        yield
        if script == "never":
            return
        if script == "fails":
            self.status(
                activeServiceStatus=_part(cluster, "DEPLOY_FAILED", "no such directory", llm="UNHEALTHY")
            )
            return
        self.serving = checkpoint
        self.status(activeServiceStatus=_part(cluster, "RUNNING"))
        if script == "falls":
            for _ in range(6):
                yield
            self.status(activeServiceStatus=_part(cluster, "UNHEALTHY", llm="UNHEALTHY"))

    def _replace(self, found: Object) -> Iterator[None]:
        """A pending cluster comes up beside the active one, and takes its place."""
        self._clusters += 1
        name = f"cluster-{self._clusters}"
        self.status(
            observedGeneration=found["metadata"]["generation"], pendingServiceStatus={"rayClusterName": name}
        )
        yield
        self.status(pendingServiceStatus=_part(name, "DEPLOYING", llm="UPDATING"))
        yield
        if self.scripts.get(_checkpoint(found).rpartition("/")[2]) == "never":
            return
        self.status(pendingServiceStatus=_part(name, "RUNNING"))
        yield
        self.serving = _checkpoint(found)
        self.status(activeServiceStatus=_part(name, "RUNNING"), pendingServiceStatus=None)


def playing(kuberay: KubeRay) -> Iterator[KubeRay]:
    """Runs it in a thread: the body of a fixture."""
    kuberay.install()
    thread = threading.Thread(target=kuberay.run)
    thread.start()
    try:
        yield kuberay
    finally:
        kuberay.stop()
        thread.join()


def _checkpoint(found: Object) -> str:
    return version_in(found["spec"]["serveConfigV2"], APPLICATION).checkpoint


def _part(cluster: str, status: str, message: str = "", **deployments: str) -> Object:
    names = {name: {"status": deployments.get(name, "HEALTHY"), "message": ""} for name in DEPLOYMENTS}
    application = {"status": status, "message": message, "serveDeploymentStatuses": names}
    return {"rayClusterName": cluster, "applicationStatuses": {APPLICATION: application}}


def wait_for(condition: Any, seconds: float = 15.0) -> None:
    """Polls until `condition()` is true."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "not within its time"
        time.sleep(0.05)
