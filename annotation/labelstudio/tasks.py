"""Tasks in Label Studio: made once for an item, found again, listed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from annotation.core import Item
from annotation.labelstudio import render
from annotation.labelstudio.http import Connection
from annotation.labelstudio.projects import Project
from annotation.labelstudio.templates import Template
from services.errors import InvalidInput, Unavailable

PAGE = 100
MODEL_VERSION = "medmax"
"""Of all drafts: the experts need not know which model wrote one, and the items do."""


@dataclass(frozen=True)
class Published:
    """An item's task. `url` opens it in the experts' browsers; `created` tells whether this call made it."""

    task_id: int
    item_id: str
    url: str
    created: bool


def publish(
    connection: Connection, project: Project, template: Template, item: Item, urls: Mapping[str, str]
) -> Published:
    """The item's task, made if there is none: by whatever process, before or after a crash.

    Label Studio has no unique keys, so the task is looked up by the item's id before and after it is made; of two
    that were made at once the older stays.

    Args:
        urls: where browsers find the item's pictures, by digest.

    Raises:
        InvalidInput: as `render.task`.
        Unavailable: Label Studio did not keep the task.
    """
    if item.kind is not project.kind:
        raise InvalidInput(f"is for a project of kind {item.kind.value}", field="item.kind")
    task = render.task(item, template, urls)
    created = False
    if not (found := find(connection, project.id, item.id)):
        prediction = {"model_version": MODEL_VERSION, "score": 1 - item.risk, "result": task.result}
        body = {"data": task.data, "meta": task.meta, "predictions": [prediction]}
        made = connection.post(f"/api/projects/{project.id}/import", [body], return_task_ids="true")
        if not (found := find(connection, project.id, item.id)):
            raise Unavailable("Label Studio did not keep the task")
        for surplus in found[1:]:
            # Another publisher came between. Both keep the older one; nobody works on the younger yet.
            connection.delete(f"/api/tasks/{surplus['id']}/")
        created = found[0]["id"] in made["task_ids"]
    number = int(found[0]["id"])
    return Published(number, item.id, url(connection, project.id, number), created)


def url(connection: Connection, project: int, task_id: int) -> str:
    """Where the task opens in a browser, behind Label Studio's log-in."""
    return f"{connection.base_url}/projects/{project}/data?task={task_id}"


def find(connection: Connection, project: int, item_id: str) -> list[dict[str, Any]]:
    """The tasks of an item, oldest first; more than one only while two publishers race."""
    found = [
        task
        for task in _page(connection, project, [_filter("data.item", "equal", "String", item_id)])
        if (task.get("meta") or {}).get("item") == item_id
    ]
    return sorted(found, key=lambda task: int(task["id"]))


def pages(
    connection: Connection, project: int, since: datetime | None = None, page: int = PAGE
) -> Iterator[list[dict[str, Any]]]:
    """All tasks by ascending number, with their annotations; those changed at or after `since`, if given.

    Each page starts after the last number seen, so that tasks deleted meanwhile hide none.
    """
    last = 0
    while True:
        filters = [_filter("id", "greater", "Number", last)]
        if since is not None:
            moment = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            filters.append(_filter("updated_at", "greater_or_equal", "Datetime", moment))
        found = _page(connection, project, filters, page)
        if found:
            yield found
        if len(found) < page:
            return
        last = int(found[-1]["id"])


def _page(
    connection: Connection, project: int, filters: list[dict[str, Any]], page: int = PAGE
) -> list[dict[str, Any]]:
    query = {"filters": {"conjunction": "and", "items": filters}, "ordering": ["tasks:id"]}
    answer = connection.get(
        "/api/tasks/", project=project, page=1, page_size=page, fields="all", query=json.dumps(query)
    )
    return list(answer["tasks"])


def _filter(column: str, operator: str, type: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": type, "value": value}
