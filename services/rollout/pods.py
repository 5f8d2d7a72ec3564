"""Images and environment of a Ray cluster's pods, in the specification `rayClusterConfig`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from services.errors import InvalidInput
from services.rollout.version import Change

HEAD = "head"
Object = dict[str, Any]


def changed(cluster: Object, change: Change) -> Object:
    """A copy of `cluster` with the images and variables of `change`.

    The first container of a pod is Ray's (KubeRay's rule); every other container with the same image follows it.

    Raises:
        InvalidInput: there is no such group, or a variable comes from a Secret or ConfigMap.
    """
    made = copy.deepcopy(cluster)
    for group, image in change.images.items():
        spec = _pod(made, group)
        former = spec["containers"][0].get("image")
        for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
            if container.get("image") == former:
                container["image"] = image
        options = made.get("autoscalerOptions") or {}
        if group == HEAD and options.get("image") == former:
            options["image"] = image
    for container in _workers(made):
        for name, value in change.env.items():
            _set(container, name, value)
    return made


def former(cluster: Object, change: Change) -> tuple[dict[str, str], dict[str, str | None]]:
    """Images and variables that lead back from `change`; None takes a variable away.

    Raises:
        InvalidInput: there is no such group; groups differ in a variable.
    """
    images = {group: str(_pod(cluster, group)["containers"][0].get("image")) for group in change.images}
    env: dict[str, str | None] = {}
    for name in change.env:
        values = {_get(container, name) for container in _workers(cluster)}
        if len(values) > 1:
            raise InvalidInput(f"the worker groups have different values of {name}", field="env")
        env[name] = values.pop() if values else None
    return images, env


def _pod(cluster: Object, group: str) -> Object:
    groups = {each.get("groupName"): each for each in cluster.get("workerGroupSpecs") or []}
    spec = cluster.get("headGroupSpec") if group == HEAD else groups.get(group)
    if not spec:
        known = ", ".join([HEAD, *sorted(map(str, groups))])
        raise InvalidInput(f"there is no worker group {group}; there are {known}", field="image")
    found: Object = spec["template"]["spec"]
    return found


def _workers(cluster: Object) -> Iterator[Object]:
    for group in cluster.get("workerGroupSpecs") or []:
        yield group["template"]["spec"]["containers"][0]


def _get(container: Object, name: str) -> str | None:
    for each in container.get("env") or []:
        if each.get("name") == name:
            if "valueFrom" in each:
                raise InvalidInput(f"{name} comes from a Secret or ConfigMap; change it there", field="env")
            return str(each.get("value") or "")
    return None


def _set(container: Object, name: str, value: str | None) -> None:
    _get(container, name)
    kept = container.get("env") or []
    at = next((index for index, each in enumerate(kept) if each["name"] == name), len(kept))
    rest = kept[at + 1 :]
    container["env"] = [*kept[:at], *([] if value is None else [{"name": name, "value": value}]), *rest]
