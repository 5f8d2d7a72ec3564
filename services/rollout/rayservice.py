"""A RayService as the target of a roll-out.

What KubeRay makes of a change: `serveConfigV2` alone is submitted to the active Ray cluster, where Serve replaces
replicas in place; anything else of the pods starts a pending cluster, which gets the new text (the active one keeps
the old) and takes the requests once its applications run. In one pass KubeRay reads Serve's status, then submits the
new text, then writes `observedGeneration`: for some seconds a status of the new generation may still tell of the old
version. So `ready` here is no proof yet: the conductor wants it to last, and asks the gateway which weights answer.
"""

from __future__ import annotations

import contextlib
import difflib
import time
from dataclasses import asdict
from typing import Any

import yaml

from services.errors import ConfigurationError
from services.rollout import pods
from services.rollout.cluster import Cluster
from services.rollout.kuberay import reading
from services.rollout.serve_config import FIELD, version_in, with_version
from services.rollout.target import State
from services.rollout.version import Change

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayservices"
MERGE_PATCH = "application/merge-patch+json"
ROLLOUT = "medmax.io/rollout"
DIGEST = "medmax.io/model-digest"
INCREMENTAL = "NewClusterWithIncrementalUpgrade"
Object = dict[str, Any]


class RayService:
    """
    Args:
        name: of the object, in the cluster's namespace.
        application: of Serve, in its serveConfigV2.
    """

    def __init__(self, cluster: Cluster, name: str, application: str) -> None:
        self._cluster = cluster
        self._name, self._application = name, application

    @property
    def name(self) -> str:
        return f"RayService {self._cluster.namespace}/{self._name}"

    @property
    def _where(self) -> Object:
        return {
            "group": GROUP,
            "version": VERSION,
            "namespace": self._cluster.namespace,
            "plural": PLURAL,
            "name": self._name,
        }

    def read(self) -> State:
        get = self._cluster.custom.get_namespaced_custom_object
        return self._state(self._cluster.call(f"get {PLURAL}/{self._name}", get, **self._where))

    def undo_of(self, state: State, change: Change) -> Change:
        images, env = pods.former(_cluster_of(state), change)
        return Change(state.version, images, env)

    def holds(self, state: State, change: Change) -> bool:
        return not self._spec(state, change)

    def preview(self, state: State, change: Change) -> str:
        spec = self._spec(state, change)
        parts = []
        if "serveConfigV2" in spec:
            parts.append((FIELD, state.source["spec"]["serveConfigV2"], spec["serveConfigV2"]))
        if "rayClusterConfig" in spec:
            before, after = (
                yaml.safe_dump(each, sort_keys=True, width=1000)
                for each in (_cluster_of(state), pods.changed(_cluster_of(state), change))
            )
            parts.append(("spec.rayClusterConfig", before, after))
        return "".join(_diff(*part) for part in parts)

    def how(self, state: State, change: Change) -> str:
        if not change.new_cluster:
            return "Serve replaces replicas in place: KubeRay submits serveConfigV2 to the active Ray cluster"
        upgrade = state.source["spec"].get("upgradeStrategy") or {}
        if upgrade.get("type") == INCREMENTAL:
            options = upgrade.get("clusterUpgradeOptions") or {}
            step, every = options.get("stepSizePercent", "?"), options.get("intervalSeconds", "?")
            return (
                f"KubeRay starts a new Ray cluster and moves {step} % of the requests to it every {every} s"
            )
        return "KubeRay starts a new Ray cluster beside the old one and switches once it is ready"

    def apply(self, state: State, change: Change, rollout: str) -> State:
        metadata = state.source["metadata"]
        notes = {ROLLOUT: rollout, DIGEST: change.version.digest or None}
        body = {
            "metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": notes},
            "spec": self._spec(state, change),
        }
        patch = self._cluster.custom.patch_namespaced_custom_object
        made = self._cluster.call(
            f"patch {PLURAL}/{self._name}", patch, **self._where, body=body, _content_type=MERGE_PATCH
        )
        return self._state(made)

    def wait(self, state: State, seconds: float) -> None:
        from kubernetes import watch
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        if seconds < 1:  # the API counts whole seconds
            time.sleep(seconds)
            return
        begun = time.monotonic()
        where = {key: value for key, value in self._where.items() if key != "name"}
        try:
            events = watch.Watch().stream(
                self._cluster.custom.list_namespaced_custom_object,
                **where,
                field_selector=f"metadata.name={self._name}",
                resource_version=state.source["metadata"]["resourceVersion"],
                timeout_seconds=max(1, round(seconds)),
                _request_timeout=max(1, round(seconds)) + 5,
            )
            with contextlib.closing(events):
                if next(events, None) is not None:
                    return
        except (ApiException, HTTPError, OSError):
            # 410 Gone (what was read is too old to watch from), a proxy without watches, a server that is away:
            # reading again tells which, and the rest of the time is slept.
            time.sleep(max(0.0, min(1.0, seconds) - (time.monotonic() - begun)))

    def _spec(self, state: State, change: Change) -> Object:
        """The part of the specification that `change` makes different."""
        spec: Object = {}
        now = state.source["spec"]["serveConfigV2"]
        if not change.version.serves_as(state.version):
            spec["serveConfigV2"] = with_version(now, self._application, change.version)
        if change.new_cluster and (after := pods.changed(_cluster_of(state), change)) != _cluster_of(state):
            # A merge patch replaces lists whole; the resource version guards against losing somebody's change.
            spec["rayClusterConfig"] = after
        return spec

    def _state(self, found: Object) -> State:
        try:
            version = version_in(found["spec"].get("serveConfigV2") or "", self._application)
            generation = int(found["metadata"]["generation"])
            read = reading(found, self._application)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(f"{self.name} makes no sense: {type(error).__name__}") from None
        return State(version=version, generation=generation, source=found, **asdict(read))


def _cluster_of(state: State) -> Object:
    found: Object = state.source["spec"].get("rayClusterConfig") or {}
    return found


def _diff(name: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{name} (now)", f"{name} (then)", lineterm="", n=2
    )
    return "".join(f"{line}\n" for line in lines)
