"""The controller is killed with `kill -9` at every place where it changes something, and started again: nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation.core import Kind
from annotation.dataset.versions import list_versions
from annotation.labelstudio.server import Login, Server
from annotation.loop.context import Loop
from annotation.loop.steps.clean import release
from annotation.store import State, What
from tests.support.review import Asked, Script, ask, expected, recorded
from tests.support.review_loop import Panel, Site, free_port, wait_for

# In the order of an item's way, so that one story meets all of them.
BEFORE_EXPERTS = (
    "route.begun", "route.decided", "route.routed", "route.drawn", "clean.begun", "clean.cleaned:2", "clean.ended",
    "publish.begun", "publish.made", "publish.made:2", "publish.ended",
)  # fmt: skip
WHILE_EXPERTS = (
    "collect.begun", "collect.reconciled", "collect.reconciled:2", "judge.begun", "judge.decided", "judge.saved:2",
    "judge.ended",
)  # fmt: skip
AFTER_EXPERTS = ("build.begun", "build.built", "build.recorded", "promote.pointed")
COUNT = 6


@pytest.fixture
def here(tmp_path: Path, labelstudio_server: Server) -> Iterator[tuple[Site, Loop]]:
    values = {
        "port": free_port(),
        "labelstudio": {
            "url": labelstudio_server.url,
            "token": labelstudio_server.admin.token.get_secret_value(),
            "reconcile_minutes": 0.05,
        },
        "routing": {"random_share": 1.0, "random_reserve": 0.9},
        "dataset": {"min_judged": COUNT},
        "steps": {"lease_s": 1, "interval_s": 0.2, "route_interval_s": 1, "backoff_s": 1},
    }
    site = Site(tmp_path, values)
    with site.opened() as loop:
        yield site, loop


def killed_at(site: Site, place: str) -> None:
    """Runs the controller until it comes to this place, where it is killed."""
    process = site.start(MEDMAX_KILL_REVIEW_AT=place)
    try:
        assert process.wait(180) == -signal.SIGKILL, f"never came to {place}"
    finally:
        if process.poll() is None:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_anywhere_it_loses_and_doubles_nothing(
    here: tuple[Site, Loop], labelstudio_server: Server
) -> None:
    site, loop = here
    tag = os.urandom(3).hex()
    logins: dict[str, Login] = Panel.enrol(labelstudio_server, [f"one-{tag}", f"two-{tag}"])
    asked: dict[str, Asked] = {one.id: one for one in ask(site.base, COUNT, seed=21)}
    script = Script([], [], "", asked, {})
    panel = Panel(labelstudio_server, script, logins)

    def count(state: State) -> int:
        return sum(loop.store.figures.counts().get(state, {}).values())

    for place in BEFORE_EXPERTS:
        killed_at(site, place)
    with site.running() as process:
        wait_for(
            lambda: not count(State.ROUTED) and not count(State.CLEANED), 180, "all are cleaned", process
        )
        for entry in loop.store.items.page(State.HELD):
            release(loop, entry.key, "test")
        wait_for(lambda: count(State.PUBLISHED) == COUNT, 180, "all are published", process)
    tasks = {
        kind: [parsed.item_id for parsed in loop.ready_studio.annotations(kind) if parsed.item_id in asked]
        for kind in Kind
    }
    assert sorted(id for ids in tasks.values() for id in ids) == sorted(asked), (
        "a task is missing or there twice"
    )

    for entry in loop.store.items.page(State.PUBLISHED):
        for expert in logins:
            assert entry.ls_task is not None
            panel.submit(expert, entry.key, entry.ls_task)
    for place in WHILE_EXPERTS:
        killed_at(site, place)
    with site.running() as process:
        wait_for(lambda: count(State.JUDGED) + count(State.BUILT) == COUNT, 180, "all are judged", process)
    for entry in (*loop.store.items.page(State.JUDGED), *loop.store.items.page(State.BUILT)):
        assert len(loop.store.annotations.of(entry.key)) == len(logins)
        verdict, truth = loop.store.judgements.current(entry.key).verdict, asked[entry.id].truth
        assert (verdict.decision, verdict.text) == (truth.decision, truth.text)

    if not count(State.BUILT):
        for place in AFTER_EXPERTS:
            killed_at(site, place)
    with site.running() as process:
        wait_for(lambda: count(State.BUILT) == COUNT, 180, "all are in the data", process)
    (on_disk,) = list_versions(loop.datasets)
    (known,) = loop.store.versions.all(What.DATA)
    assert known.id == on_disk.digest
    found = recorded(on_disk)
    assert {file: sorted(records) for file, records in found.items()} == {
        file: sorted(records) for file, records in expected(asked.values()).items()
    }
    assert loop.store.audit.verify().broken_at is None
