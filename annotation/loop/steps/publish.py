"""De-identified items → tasks in Label Studio; and tasks of withdrawn items out of it."""

from __future__ import annotations

from annotation.core import Kind
from annotation.labelstudio.ml_backend import connect
from annotation.loop.context import Loop
from annotation.loop.cursors import PROJECTS
from annotation.loop.faults import point
from annotation.loop.result import Result
from annotation.loop.steps.pages import SHARED, each
from annotation.store import Entry, State
from services.errors import DeadlineExceeded, InvalidInput, PermissionDenied, Unauthenticated

# All items would fail with these.
STUDIO = (*SHARED, DeadlineExceeded, PermissionDenied, Unauthenticated)
DRAFTS = "labelstudio.drafts"


def run(loop: Loop) -> Result:
    """A batch of items. Items of a project that a person configured by hand wait; others go on."""
    if not loop.has_studio:
        return Result(said={"off": "review.labelstudio.url is not set"})
    store, studio, links = loop.store, loop.ready_studio, loop.links
    gone = 0
    for entry in store.items.withdrawn_tasks(loop.settings.steps.batch):
        studio.remove(entry.kind, entry.id)
        point("publish.removed")
        store.items.task_gone(entry.key)
        gone += 1

    def work(entry: Entry) -> None:
        item = store.items.load(entry.key)
        published = studio.publish(item, links.urls(item))
        point("publish.made")
        store.items.publish(entry.key, studio.project(entry.kind).id, published.task_id)

    result = each(loop, State.CLEANED, work, STUDIO)
    if result.failed or store.progress.cursor(PROJECTS) is None:
        note_projects(loop)
    if loop.settings.assistant.url and store.progress.cursor(DRAFTS) != loop.hook_url:
        _offer_drafts(loop, result)
    if gone:
        result.said["tasks_removed"] = gone
    return result


def _offer_drafts(loop: Loop, result: Result) -> None:
    """Tell Label Studio where experts get drafts; it asks there at once, so the controller must serve."""
    url = f"{loop.hook_url}/labelstudio/drafts"
    try:
        for kind in (Kind.CHAT, Kind.REPORT):
            connect(loop.studio.connection, loop.studio.project(kind).id, url, loop.secrets.drafts)
    except InvalidInput:
        result.failed["drafts_unreachable"] += 1
    else:
        loop.store.progress.set_cursor(DRAFTS, loop.hook_url)


def note_projects(loop: Loop) -> dict[str, str]:
    """Look at every project's configuration, and keep what `status` says of it."""
    found = {kind.value: project.state.value for kind, project in loop.studio.ensure_projects().items()}
    loop.store.progress.set_cursor(PROJECTS, found)
    return found
