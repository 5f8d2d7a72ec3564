"""Label Studio as the review loop uses it: projects, tasks, annotations. All by HTTP, all repeatable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr

from annotation.core import Annotation, Item, Kind
from annotation.labelstudio import projects, tasks, templates
from annotation.labelstudio.http import Connection
from annotation.labelstudio.parse import Parsed, Problem, parse
from annotation.labelstudio.projects import Hook, Project
from annotation.labelstudio.snapshot import Changes, Snapshot, diff, stamp
from annotation.labelstudio.tasks import Published
from annotation.labelstudio.templates import Template
from services.errors import NotFound


@dataclass(frozen=True)
class Draft:
    """Work that is not submitted. `annotator` is Label Studio's user id as text."""

    annotator: str
    updated_at: datetime


class LabelStudio:
    """One Label Studio. Safe for threads; holds nothing that another process would need.

    Args:
        hook: where its projects send webhooks; None sets none.
        reviewers: annotations after which a task counts as done.
        configs: folder of the labelling configurations.
        timeout_s: for each attempt of a request.

    Every method raises `Unauthenticated`, `PermissionDenied`, `Overloaded`, `DeadlineExceeded` and `Unavailable` for what
    Label Studio answers or fails to.
    """

    def __init__(
        self,
        url: str,
        token: SecretStr,
        *,
        hook: Hook | None = None,
        reviewers: int = 1,
        configs: Path = templates.FOLDER,
        timeout_s: float = 30.0,
    ) -> None:
        self.connection = Connection(url, token, timeout_s)
        self.templates: dict[Kind, Template] = {kind: templates.load(kind, configs) for kind in Kind}
        self._hook, self._reviewers = hook, reviewers
        self._projects: dict[Kind, Project] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()

    def ensure_project(self, kind: Kind) -> Project:
        """The project of a kind, made if there is none. A configuration that is there is never changed: see its `state`.

        Raises:
            ConfigurationError: the project's mark is damaged.
        """
        return self.ensure_projects(kind)[kind]

    def ensure_projects(self, *kinds: Kind) -> dict[Kind, Project]:
        """As `ensure_project`, for several kinds; for all where none is named."""
        wanted = {kind: self.templates[kind] for kind in kinds or Kind}
        found = projects.ensure(self.connection, wanted, self._reviewers, self._hook)
        self._projects |= found
        return found

    def migrate(self, kind: Kind) -> int:
        """Bring a project to our configuration, from an older version or from changes by hand.

        Returns:
            How many annotations were checked.

        Raises:
            ConfigurationError: an annotation would be lost or change its meaning; nothing is changed then.
        """
        project = self.ensure_project(kind)
        every = (task for page in tasks.pages(self.connection, project.id) for task in page)
        checked = projects.overwrite(self.connection, project, self.templates[kind], every, self._reviewers)
        self.ensure_project(kind)
        return checked

    def publish(self, item: Item, urls: Mapping[str, str]) -> Published:
        """The item's task, made if there is none, with the answer ready for editing.

        Args:
            urls: where browsers find the item's pictures, by digest (`PictureLinks.urls`).

        Raises:
            ConfigurationError: the project is not as we configured it.
            InvalidInput: the item cannot be shown; the message names the field.
        """
        # Looked at each time: a person may have changed the configuration since the last item.
        project = self._look(item.kind) if item.kind in self._projects else self.ensure_project(item.kind)
        project.check()
        return tasks.publish(self.connection, project, self.templates[item.kind], item, urls)

    def remove(self, kind: Kind, item_id: str) -> int:
        """Delete the item's task with its annotations. Returns the number of tasks deleted: 0 or 1."""
        found = tasks.find(self.connection, self.project(kind).id, item_id)
        for task in found:
            self.connection.delete(f"/api/tasks/{task['id']}/")
        return len(found)

    def remove_surplus(self, task_id: int) -> bool:
        """Delete one of two tasks of an item, unless somebody annotated it or began to; whether it is gone."""
        try:
            if self.connection.get(f"/api/tasks/{task_id}/").get("annotations") or self.drafts(task_id):
                return False
        except NotFound:
            return True
        self.connection.delete(f"/api/tasks/{task_id}/")
        return True

    def project(self, kind: Kind) -> Project:
        """As `ensure_project` found it last."""
        return self._projects.get(kind) or self.ensure_project(kind)

    def _look(self, kind: Kind) -> Project:
        try:
            found = self.connection.get(f"/api/projects/{self._projects[kind].id}/")
        except NotFound:
            return self.ensure_project(kind)
        self._projects[kind] = projects.state(found, self.templates[kind])
        return self._projects[kind]

    def task(self, kind: Kind, task_id: int) -> Parsed:
        """One task's annotations.

        Raises:
            NotFound: a person deleted it.
        """
        found = self.connection.get(f"/api/tasks/{task_id}/")
        return parse(found, self.templates[kind], self.project(kind).id)

    def drafts(self, task_id: int) -> list[Draft]:
        """Who has begun to work on a task and not submitted; Label Studio saves drafts while somebody edits.

        Raises:
            NotFound: a person deleted the task.
        """
        found = self.connection.get(f"/api/tasks/{task_id}/drafts")
        # `user` is an address; the number stands at the end of the name.
        return [
            Draft(
                str(entry["created_username"]).rpartition(", ")[2],
                datetime.fromisoformat(entry["updated_at"]),
            )
            for entry in found
        ]

    def url(self, kind: Kind, task_id: int) -> str:
        """Where the task opens in a browser."""
        return tasks.url(self.connection, self.project(kind).id, task_id)

    def annotations(self, kind: Kind, since: datetime | None = None) -> Iterator[Parsed]:
        """Task by task what experts said; of those changed at or after `since`, if given. Memory stays flat."""
        for _, parsed in self._read(kind, since):
            yield parsed

    def _read(self, kind: Kind, since: datetime | None) -> Iterator[tuple[dict[str, Any], Parsed]]:
        project = self.project(kind)
        for page in tasks.pages(self.connection, project.id, since):
            for task in page:
                yield task, parse(task, self.templates[kind], project.id)

    def reconcile(
        self,
        kind: Kind,
        before: Snapshot,
        take: Callable[[Annotation], None],
        problem: Callable[[Problem], None] | None = None,
    ) -> tuple[Snapshot, Changes]:
        """Look at everything, and hand over what is new or changed since `before`.

        Args:
            take: called with each new or changed annotation.
            problem: called with each oddity.

        Returns:
            The snapshot to pass next time, and what changed.
        """
        seen: dict[str, str] = {}
        held: dict[str, int] = {}
        surplus: list[tuple[str, int]] = []
        for task, parsed in self._read(kind, None):
            if parsed.item_id:
                number = int(task["id"])
                # The oldest, as `publish` has it, unless another one was known.
                kept = held.setdefault(parsed.item_id, number)
                if number != kept:
                    if before.tasks.get(parsed.item_id) == number:
                        held[parsed.item_id], number = number, kept
                    surplus.append((parsed.item_id, number))
            for annotation in parsed.annotations:
                seen[annotation.id] = stamp(annotation)
                if before.annotations.get(annotation.id) != seen[annotation.id]:
                    take(annotation)
            for oddity in parsed.problems:
                if problem is not None:
                    problem(oddity)
        after = Snapshot(seen, held)
        return after, replace(diff(before, after), surplus=tuple(surplus))
