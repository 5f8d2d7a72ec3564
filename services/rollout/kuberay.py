"""What a RayService's status says, in our words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """The fields of `services.rollout.target.State` of the same names."""

    observed: int
    ready: bool
    taking: bool
    failed: str
    detail: str
    cluster: str


def reading(found: Object, application: str) -> Reading:
    """Reads `found`, a RayService, about one application of Serve.

    While a pending cluster is named it is that one which becomes the new version; under incremental upgrades it takes
    part of the requests already. `serviceStatus` alone says only that some endpoint answers.
    """
    status = found.get("status") or {}
    active, pending = (status.get(f"{each}ServiceStatus") or {} for each in ("active", "pending"))
    switching = bool(pending.get("rayClusterName"))
    telling = pending if switching else active
    app = (telling.get("applicationStatuses") or {}).get(application) or {}
    share = int(pending.get("trafficRoutedPercent") or 0)
    observed = int(status.get("observedGeneration") or 0)
    current = observed >= int(found["metadata"]["generation"])
    well = current and _healthy(app)
    detail = _detail(app, telling.get("rayClusterName") or "", switching, share)
    return Reading(
        observed=observed,
        ready=well and not switching and status.get("serviceStatus") == "Running",
        taking=well and (not switching or share > 0),
        failed=_failure(status, app) if current else "",
        detail=detail if current else "KubeRay has not seen the change yet",
        cluster=active.get("rayClusterName") or "",
    )


def _healthy(app: Object) -> bool:
    deployments = (app.get("serveDeploymentStatuses") or {}).values()
    return app.get("status") == "RUNNING" and all(each.get("status") == "HEALTHY" for each in deployments)


def _failure(status: Object, app: Object) -> str:
    for each in status.get("conditions") or []:
        # Both end KubeRay's work on the object until its specification changes.
        if (
            each.get("reason") in {"ValidationFailed", "InitializingTimeout"}
            and each.get("status") == "False"
        ):
            return f"KubeRay refuses it: {str(each.get('message'))[:300]}"
    if app.get("status") == "DEPLOY_FAILED":
        return f"Serve cannot deploy it: {str(app.get('message') or '').strip()[:300] or 'no reason given'}"
    return ""


def _detail(app: Object, cluster: str, switching: bool, share: int) -> str:
    deployments = app.get("serveDeploymentStatuses") or {}
    sick = [
        f"{name} {each.get('status')}"
        for name, each in sorted(deployments.items())
        if each.get("status") != "HEALTHY"
    ]
    text = f"application {app.get('status') or 'not there yet'}"
    text += f" ({', '.join(sick)})" if sick else ""
    return f"{text}, on the new Ray cluster {cluster} with {share} % of the requests" if switching else text
