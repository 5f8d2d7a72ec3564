"""One Label Studio project for each kind of item: found by a mark in its description, set up and migrated by code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import SecretStr

from annotation.core import Kind
from annotation.labelstudio import parse
from annotation.labelstudio.http import Connection
from annotation.labelstudio.templates import Template, digest
from annotation.labelstudio.webhook import ACTIONS
from services.errors import ConfigurationError, InvalidInput

_MARK = re.compile(r"\[medmax-review (\w+) v(\d+) ([0-9a-f]{64})\]")
_PAGE = 100

TITLES = {
    Kind.CHAT: "MedMax: answers",
    Kind.REPORT: "MedMax: reports",
    Kind.PICTURE: "MedMax: generated pictures",
    Kind.PREFERENCE: "MedMax: preferences",
}
INSTRUCTIONS = {
    Kind.CHAT: "Read the dialogue and judge the <b>last answer</b>. <b>A</b> accept, <b>E</b> edit, <b>R</b> reject. "
    "An edited answer must be whole: it is what the model will learn. Keep <code>&lt;image&gt;</code> where it stands. "
    "Ctrl+Enter submits.",
    Kind.REPORT: "Compare the report with the picture. <b>Edit</b> opens it sentence by sentence. Choose a label, then draw: "
    "<b>1-8</b> labels. Mark what the report misses or gets wrong. Ctrl+Enter submits.",
    Kind.PICTURE: "The model drew this picture for the request beside it. Rate how real it looks and how well it fits, then "
    "accept or reject. Mark wrong regions: choose a label, then draw. Ctrl+Enter submits.",
    Kind.PREFERENCE: "Put the answers in order, the best first. Judge what they say about the pictures before how they say it. "
    "Ctrl+Enter submits.",
}


class State(StrEnum):
    CURRENT = "current"
    OUTDATED = "outdated"  # made by an earlier version of ours: migrate
    NEWER = "newer"  # made by a later version of ours: upgrade this program
    CHANGED = "changed by hand"  # a person edited the configuration


@dataclass(frozen=True)
class Project:
    """version: of the configuration, as our mark says."""

    id: int
    kind: Kind
    version: int
    state: State

    def check(self) -> None:
        """Raises:
        ConfigurationError: not CURRENT; the message says what to do.
        """
        what = {
            State.OUTDATED: "has an older configuration: migrate it",
            State.NEWER: "has a newer configuration: upgrade this program",
            State.CHANGED: "was configured by hand: put it back, or set it up again with overwrite",
        }
        if self.state in what:
            raise ConfigurationError(
                f"project {self.id} ({self.kind.value}) {what[self.state]}", field="project"
            )


@dataclass(frozen=True)
class Hook:
    """Where projects send their webhooks."""

    url: str
    secret: SecretStr


def ensure(
    connection: Connection, templates: Mapping[Kind, Template], reviewers: int, hook: Hook | None
) -> dict[Kind, Project]:
    """The project of each template's kind; created if there is none, its webhook set. Changes no configuration.

    Args:
        reviewers: annotations after which Label Studio counts a task as done.

    Raises:
        whatever `Connection` does.
    """
    there = _marked(connection)
    found = {
        kind: there.get(kind.value) or _create(connection, templates[kind], reviewers) for kind in templates
    }
    made = {kind: state(project, templates[kind]) for kind, project in found.items()}
    if hook is not None:
        hooks = connection.get("/api/webhooks/")
        for project in made.values():
            _ensure_hook(connection, project.id, hook, hooks)
    return made


def _create(connection: Connection, template: Template, reviewers: int) -> dict[str, Any]:
    body = _settings(template, reviewers) | {"title": TITLES[template.kind]}
    found = connection.post("/api/projects/", body)
    if digest(found["label_config"]) != template.digest:
        raise ConfigurationError(
            "Label Studio stored another configuration than it was given", field="project"
        )
    return dict(found)


def _marked(connection: Connection) -> dict[str, dict[str, Any]]:
    """The oldest project with our mark of each kind. Two that were made at once are told apart by age."""
    found: dict[str, dict[str, Any]] = {}
    for project in sorted(_all(connection), key=lambda project: int(project["id"])):
        if mark := _MARK.search(project.get("description") or ""):
            found.setdefault(mark[1], project)
    return found


def state(project: Mapping[str, Any], template: Template) -> Project:
    """What a project's configuration is, against ours."""
    mark = _MARK.search(project.get("description") or "")
    if mark is None or mark[1] != template.kind.value:
        raise ConfigurationError("the project's mark is gone from its description", field="project")
    version = int(mark[2])
    if digest(project.get("label_config") or "") != mark[3]:
        found = State.CHANGED
    elif version > template.version:
        found = State.NEWER
    elif mark[3] != template.digest:
        # Of the same version only looks differ.
        found = State.OUTDATED
    else:
        found = State.CURRENT
    return Project(int(project["id"]), template.kind, version, found)


def overwrite(
    connection: Connection,
    project: Project,
    template: Template,
    tasks: Iterable[Mapping[str, Any]],
    reviewers: int,
) -> int:
    """Give a project the template's configuration: a migration, or an end to changes by hand.

    Args:
        tasks: all of the project, with their annotations.

    Returns:
        How many annotations were checked: each means under the new configuration what it means under the old.

    Raises:
        ConfigurationError: an annotation would be lost or mean something else, a task lacks a field that is shown, or
            the project is newer. Nothing is changed then.
    """
    if project.state is State.NEWER:
        project.check()
    now = connection.get(f"/api/projects/{project.id}")
    old = Template(template.kind, project.version, now["label_config"])
    checked = check(tasks, old, template, project.id)
    try:
        connection.post(f"/api/projects/{project.id}/validate", {"label_config": template.xml})
    except InvalidInput:
        raise ConfigurationError("Label Studio refuses the new configuration", field="project") from None
    connection.patch(f"/api/projects/{project.id}/", _settings(template, reviewers))
    return checked


def check(tasks: Iterable[Mapping[str, Any]], old: Template, new: Template, project: int) -> int:
    """See `overwrite`."""
    checked = 0
    for task in tasks:
        before = parse.parse(task, old, project)
        after = parse.parse(task, new, project)
        missing = new.fields - set(task.get("data") or ())
        if before.item_id and missing:
            raise ConfigurationError(f"tasks lack {', '.join(sorted(missing))}", field="project")
        kept = {annotation.id: annotation for annotation in after.annotations}
        for annotation in before.annotations:
            if kept.get(annotation.id) != annotation:
                controls = {problem.control for problem in after.problems if problem.control}
                raise ConfigurationError(
                    f"annotation {annotation.id} would change or be lost "
                    f"({', '.join(sorted(controls)) or 'its values'})",
                    field="project",
                )
        checked += len(before.annotations)
    return checked


def _settings(template: Template, reviewers: int) -> dict[str, Any]:
    kind = template.kind
    return {
        "label_config": template.xml,
        # In one request with the configuration, so that no crash comes between.
        "description": "Made by MedMax Serve; leave the next line.\n"
        f"[medmax-review {kind.value} v{template.version} {template.digest}]",
        "expert_instruction": INSTRUCTIONS[kind],
        "show_instruction": True,
        "show_skip_button": True,
        "enable_empty_annotation": False,
        "show_collab_predictions": True,
        "maximum_annotations": reviewers,
        "sampling": "Sequential sampling",
    }


def _all(connection: Connection) -> Iterator[dict[str, Any]]:
    page = 1
    while True:
        answer = connection.get("/api/projects/", page=page, page_size=_PAGE)
        yield from answer["results"]
        if not answer.get("next"):
            return
        page += 1


def _ensure_hook(
    connection: Connection, project: int, hook: Hook, hooks: Iterable[Mapping[str, Any]]
) -> None:
    wanted = {
        "url": hook.url,
        "send_payload": True,
        "send_for_all_actions": False,
        "headers": {"Authorization": f"Bearer {hook.secret.get_secret_value()}"},
        "is_active": True,
        "actions": list(ACTIONS),
    }
    for found in hooks:
        if found["project"] == project and found["url"] == hook.url:
            same = all(found.get(name) == value for name, value in wanted.items() if name != "actions")
            if not same or set(found.get("actions", ())) != set(ACTIONS):
                connection.patch(f"/api/webhooks/{found['id']}/", wanted)
            return
    connection.post("/api/webhooks/", wanted | {"project": project})
