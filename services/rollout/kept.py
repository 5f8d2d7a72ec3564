"""What is kept of roll-outs in a cluster: a ConfigMap for the records, a Lease for who conducts one."""

from __future__ import annotations

import json
import os
import secrets
import time
from datetime import UTC, datetime
from typing import Any

from services.errors import ConfigurationError, NotFound
from services.rollout.cluster import Cluster
from services.rollout.record import Book, Event, Rollout, person
from services.rollout.target import ATTEMPTS, Conflict, Taken

CURRENT, HISTORY = "current", "history"
LEASE_S = 30
Object = dict[str, Any]


class ConfigMapLedger:
    """The ConfigMap `name`: key `current` holds the last roll-out as JSON, `history` one event a line."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self._name = cluster, name

    def read(self) -> Book:
        core, namespace = self._cluster.core, self._cluster.namespace
        try:
            found = self._cluster.call(
                f"get configmaps/{self._name}", core.read_namespaced_config_map, self._name, namespace
            )
        except NotFound:
            return Book()
        data = found.data or {}
        try:
            current = json.loads(data[CURRENT]) if data.get(CURRENT) else None
            return Book(
                Rollout.from_json(current) if current else None,
                [Event.from_json(json.loads(line)) for line in data.get(HISTORY, "").splitlines()],
                str(found.metadata.resource_version),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"the ConfigMap {self._name} holds no record of roll-outs ({type(error).__name__}); rename or mend it"
            ) from None

    def write(self, book: Book) -> None:
        core, namespace = self._cluster.core, self._cluster.namespace
        body: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self._name, "namespace": namespace},
            "data": {
                CURRENT: json.dumps(book.current.to_json()) if book.current else "",
                HISTORY: "".join(json.dumps(event.to_json()) + "\n" for event in book.history),
            },
        }
        if not book.revision:
            made = core.create_namespaced_config_map
            self._cluster.call(f"create configmaps/{self._name}", made, namespace, body)
            return
        # A patch keeps what others put there, such as Helm's labels; the resource version makes it a comparison.
        body["metadata"]["resourceVersion"] = book.revision
        self._cluster.call(
            f"patch configmaps/{self._name}",
            core.patch_namespaced_config_map,
            self._name,
            namespace,
            body,
            _content_type="application/merge-patch+json",
        )


class LeaseLock:
    """The Lease `name`, held while a roll-out is conducted and free `LEASE_S` seconds after its holder died.

    Whether it is free is judged by this machine's clock: those of two conductors must not differ by so much.
    """

    def __init__(self, cluster: Cluster, name: str, seconds: int = LEASE_S) -> None:
        self._cluster, self._name, self._seconds = cluster, name, seconds
        self._holder = f"{person()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._renewed = 0.0

    @property
    def _where(self) -> Object:
        where = {"group": "coordination.k8s.io", "version": "v1", "plural": "leases"}
        return {**where, "namespace": self._cluster.namespace}

    def acquire(self) -> None:
        for _ in range(ATTEMPTS):
            found = self._read()
            holder, until = _holder(found)
            if holder and holder != self._holder and until > time.time():
                raise Taken(
                    f"another roll-out is conducted by {holder.split(':')[0]}; see `medmax rollout status`. If that "
                    f"process died, try again in {max(1, round(until - time.time()))} s",
                    retry_after_s=max(1.0, until - time.time()),
                )
            if self._take(found, fresh=holder != self._holder):
                return
        raise Taken("others were quicker time and again; try again")

    def renew(self) -> None:
        if time.time() - self._renewed < self._seconds / 3:
            return
        for _ in range(ATTEMPTS):
            found = self._read()
            holder, _ = _holder(found)
            if holder != self._holder:
                raise Taken(f"{(holder or 'another process').split(':')[0]} has taken over this roll-out")
            if self._take(found, fresh=False):
                return
        raise Taken("others were quicker time and again; try again")

    def release(self) -> None:
        found = self._read()
        if found is None or _holder(found)[0] != self._holder:
            return
        found["spec"]["holderIdentity"] = ""
        replace = self._cluster.custom.replace_namespaced_custom_object
        try:
            self._cluster.call(
                f"update leases/{self._name}", replace, **self._where, name=self._name, body=found
            )
        except Conflict:
            return  # somebody took it, so it is no longer ours to give back

    def _read(self) -> Object | None:
        get = self._cluster.custom.get_namespaced_custom_object
        try:
            found: Object = self._cluster.call(
                f"get leases/{self._name}", get, **self._where, name=self._name
            )
        except NotFound:
            return None
        return found

    def _take(self, found: Object | None, fresh: bool) -> bool:
        """Writes our name on the Lease; False where somebody was quicker."""
        now = time.time()
        lease = found or {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._cluster.namespace},
        }
        spec = dict(lease.get("spec") or {})
        if fresh:
            spec["acquireTime"] = _micro(now)
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + bool(found)
        spec |= {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": self._seconds,
            "renewTime": _micro(now),
        }
        custom = self._cluster.custom
        try:
            if found is None:
                make = custom.create_namespaced_custom_object
                self._cluster.call(
                    f"create leases/{self._name}", make, **self._where, body={**lease, "spec": spec}
                )
            else:
                replace = custom.replace_namespaced_custom_object
                body = {**lease, "spec": spec}
                self._cluster.call(
                    f"update leases/{self._name}", replace, **self._where, name=self._name, body=body
                )
        except Conflict:
            return False
        self._renewed = now
        return True


def _holder(lease: Object | None) -> tuple[str, float]:
    """Who holds a Lease, and until when (seconds since 1970)."""
    spec = (lease or {}).get("spec") or {}
    try:
        renewed = datetime.fromisoformat(spec["renewTime"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return str(spec.get("holderIdentity") or ""), 0.0
    return str(spec.get("holderIdentity") or ""), renewed + int(spec.get("leaseDurationSeconds") or 0)


def _micro(seconds: float) -> str:
    """A MicroTime: six digits of a second always, unlike `isoformat`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
