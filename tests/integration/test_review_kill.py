"""The controller is killed with `kill -9` at every place where it changes something, and started again: nothing is lost or doubled."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from annotation.core import Kind
from annotation.dataset.versions import list_versions
from annotation.labelstudio.server import Server
from annotation.loop import pointer
from annotation.loop.context import Loop
from annotation.loop.cursors import RECONCILED
from annotation.loop.steps import STEPS
from annotation.loop.steps.clean import release
from annotation.loop.steps.route import PLAN
from annotation.store import Entry, State, Status, What
from services.config import ROOT
from services.interactions.database import transaction
from services.interactions.schema import interactions
from tests.support.review import Asked, Script, ask, eval_set, expected, recorded
from tests.support.review_loop import Panel, Site, free_port, wait_for

ANSWERS = 7
QUESTION = "Is it urgent?"


@dataclass
class Story:
    """One installation, one Label Studio, two experts. All answers are given before; consent to use them comes bit by bit.

    Attributes:
        site: its controller.
        loop: its state, as the test sees it.
        asked: answers without consent yet.
        given: answers that the loop may use, by id.
        withdrawn: the one whose consent was taken back.
        said: keys of items that both experts annotated.
        process: the controller that is to be killed.
    """

    site: Site
    loop: Loop
    panel: Panel
    asked: list[Asked]
    given: dict[str, Asked] = field(default_factory=dict)
    withdrawn: str = ""
    said: set[str] = field(default_factory=set)
    process: BaseProcess | None = None

    def consent(self, ids: list[str], to: bool) -> None:
        with transaction(self.loop.store.engine) as connection:
            which = interactions.c.id.in_(ids)
            connection.execute(interactions.update().where(which).values(consent_training=to))

    def answers(self, count: int) -> None:
        for one in [self.asked.pop() for _ in range(count)]:
            self.given[one.id] = one
        self.consent(list(self.given), True)

    def taken_back(self) -> None:
        """A patient takes back the consent to an answer that is before the experts, as all are by then."""
        with self.site.forked():
            self.wait_for(lambda: len(self.unsaid()) == len(self.given), "all are published")
        self.withdrawn = self.unsaid()[0].id
        del self.given[self.withdrawn]
        self.consent([self.withdrawn], False)

    def unsaid(self) -> list[Entry]:
        found = self.loop.store.items.page(State.PUBLISHED)
        return [entry for entry in found if entry.key not in self.said]

    def verdicts(self, count: int) -> None:
        """Both experts annotate items while nobody listens; the next controller must look for them."""
        for entry in self.unsaid()[:count]:
            for expert in self.panel.logins:
                self.submit(expert, entry)
            self.said.add(entry.key)
            count -= 1
        assert not count, "too few items are before the experts"
        self.loop.store.progress.set_cursor(RECONCILED, None)

    def submit(self, expert: str, entry: Entry) -> None:
        assert entry.ls_task is not None
        self.panel.submit(expert, entry.key, entry.ls_task)

    def heard(self, expert: int) -> None:
        """One of them annotates while the controller listens: the webhook tells of it.

        What was told to the controller before may bring this one to its end first; then the look at everything finds it.
        """
        process = self.process
        assert process is not None
        wait_for(lambda: process.exitcode is not None or self.site.answers(), 120, "the controller answers")
        entry = max(self.unsaid(), key=lambda entry: entry.key)
        self.submit(list(self.panel.logins)[expert], entry)
        if expert == len(self.panel.logins) - 1:
            self.said.add(entry.key)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        def met() -> bool:
            # Some drawings look like letters to the reader of text; a person looks at those.
            for entry in self.loop.store.items.page(State.HELD):
                release(self.loop, entry.key, "test")
            return condition()

        wait_for(met, 180, what)

    def killed_at(self, place: str, meanwhile: Callable[[], None] | None = None) -> None:
        """Runs the controller until it comes to this place, where it is killed."""
        with self.site.forked(MEDMAX_KILL_REVIEW_AT=place) as process:
            self.process = process
            if meanwhile is not None:
                meanwhile()

            self.wait_for(lambda: process.exitcode is not None, f"{place} is reached")
            assert process.exitcode == -signal.SIGKILL, self.site.log.read_text()[-2000:]


@dataclass(frozen=True)
class Kill:
    """A place; what happens before the controller that dies there starts, and while it runs."""

    place: str
    before: Callable[[Story], None] | None = None
    meanwhile: Callable[[Story], None] | None = None


# In the order of an item's way, with new work for each place where an earlier controller may have done what there was.
KILLS = (
    Kill("tidy.begun"),
    Kill("tidy.ended"),
    Kill("route.begun", lambda story: story.answers(1)),
    Kill("route.decided"),
    Kill("route.routed"),
    Kill("route.weighed"),
    Kill("route.drawn"),
    Kill("route.ended", lambda story: story.answers(1)),
    Kill("clean.begun"),
    Kill("clean.cleaned", lambda story: story.answers(1)),
    Kill("clean.cleaned:2", lambda story: story.answers(1)),
    Kill("clean.ended"),
    Kill("publish.begun"),
    Kill("publish.made", lambda story: story.answers(1)),
    Kill("publish.made:2", lambda story: story.answers(2)),
    Kill("publish.ended", lambda story: story.answers(1)),
    Kill("publish.removed", lambda story: story.taken_back()),
    Kill("collect.begun"),
    Kill("collect.one", None, lambda story: story.heard(0)),
    Kill("collect.recorded", None, lambda story: story.heard(1)),
    Kill("collect.reconciled", lambda story: story.verdicts(1)),
    Kill("collect.reconciled:2", lambda story: story.verdicts(1)),
    Kill("collect.ended"),
    Kill("judge.begun"),
    Kill("judge.decided", lambda story: story.verdicts(1)),
    Kill("judge.saved", lambda story: story.verdicts(1)),
    Kill("judge.ended", lambda story: story.verdicts(1)),
    Kill("calibrate.begun"),
    Kill("calibrate.ended"),
    # From here on there is enough for a version of the data.
    Kill("build.begun", lambda story: story.verdicts(len(story.unsaid()))),
    Kill("build.built"),
    Kill("build.recorded"),
    Kill("build.ended"),
    Kill("train.begun"),
    Kill("train.trained"),
    Kill("train.merged"),
    Kill("train.ended"),
    Kill("evaluate.begun"),
    Kill("evaluate.run"),
    Kill("evaluate.compared"),
    # Here: the decision follows at once, so a controller that is to die later would have made it.
    Kill("promote.decided"),
    Kill("evaluate.ended"),
    Kill("promote.begun"),
    Kill("promote.pointed"),
    Kill("promote.ended"),
)


@pytest.fixture
def story(tmp_path: Path, labelstudio_server: Server) -> Iterator[Story]:
    values = {
        "port": free_port(),
        "labelstudio": {
            "url": labelstudio_server.url,
            "token": labelstudio_server.admin.token.get_secret_value(),
            "reconcile_minutes": 60,
        },
        "routing": {"random_share": 1.0, "random_reserve": 0.9},
        "dataset": {"min_judged": ANSWERS, "validation_share": 0},
        "train": {"enabled": True, "min_rows": 1, "epochs": 1, "rate": 0.002},
        "evaluation": [{"data": str(eval_set(tmp_path / "house", QUESTION, "yes", range(3)))}],
        "promote": {"min_examples": 1},
        "steps": {"lease_s": 1, "interval_s": 0.2, "route_interval_s": 0.5, "backoff_s": 1},
    }
    site = Site(tmp_path, values)
    logins = Panel.enrol(labelstudio_server, ["one", "two"])
    asked = ask(site.base, ANSWERS + 1, seed=21)  # one is taken back
    script = Script([], [], "", {one.id: one for one in asked}, {})
    with site.opened() as loop:
        made = Story(site, loop, Panel(labelstudio_server, script, logins), asked)
        made.consent([one.id for one in asked], False)
        yield made


def test_the_story_has_every_place_at_which_a_step_changes_something() -> None:
    found = {
        place
        for path in (ROOT / "annotation" / "loop").rglob("*.py")
        for place in re.findall(r'\bpoint\("([a-z]+\.[a-z]+)"\)', path.read_text())
    }
    found.remove("resample.drawn")  # needs a model: tests/unit/annotation/test_loop_resample.py dies there
    around = {f"{step}.{when}" for step in STEPS for when in ("begun", "ended")}
    assert {kill.place.partition(":")[0] for kill in KILLS} == found | around


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_anywhere_it_loses_and_doubles_nothing(story: Story) -> None:
    loop = story.loop
    for kill in KILLS:
        if kill.before is not None:
            kill.before(story)
        meanwhile = kill.meanwhile
        story.killed_at(kill.place, (lambda do=meanwhile: do(story)) if meanwhile is not None else None)

    def count(state: State) -> int:
        return sum(loop.store.figures.counts().get(state, {}).values())

    def done() -> bool:
        (model,) = loop.store.versions.all(What.MODEL)
        return count(State.BUILT) == ANSWERS and model.status is not Status.CANDIDATE

    with story.site.running() as process:
        wait_for(done, 180, "all is done", process)
    # Every answer became one item, with one task, one verdict of each expert, and the judgement that they all gave.
    assert not story.asked
    assert len(story.given) == ANSWERS
    assert {entry.id for entry in loop.store.items.page(State.BUILT)} == set(story.given)
    assert [entry.id for entry in loop.store.items.page(State.WITHDRAWN)] == [story.withdrawn]
    ours = {*story.given, story.withdrawn}
    tasks = Counter(
        task.item_id for kind in Kind for task in loop.ready_studio.annotations(kind) if task.item_id in ours
    )
    assert tasks == Counter(story.given.keys()), "a task is missing, there twice, or should be gone"
    for entry in loop.store.items.page(State.BUILT):
        said = loop.store.annotations.of(entry.key)
        assert sorted(one.annotator for one in said) == sorted(story.panel.logins)
        verdict, truth = loop.store.judgements.current(entry.key).verdict, story.given[entry.id].truth
        assert (verdict.decision, verdict.text) == (truth.decision, truth.text)
    assert loop.store.figures.inbox() == (0, 0)
    assert loop.store.progress.cursor(PLAN) is None
    # One version of the data, on disk and known, with exactly their rows.
    (on_disk,) = list_versions(loop.datasets)
    (known,) = loop.store.versions.all(What.DATA)
    assert known.id == on_disk.digest
    found = recorded(on_disk)
    assert {file: Counter(records) for file, records in found.items()} == {
        file: Counter(records) for file, records in expected(story.given.values()).items()
    }
    # One model of it, measured and decided on; what serves `current` follows the decision.
    (model,) = loop.store.versions.all(What.MODEL)
    assert model.parent == known.id
    assert model.status in (Status.PROMOTED, Status.REFUSED)
    assert model.scores["tasks"]
    assert Path(os.readlink(pointer.path(loop))) == loop.checkpoint.absolute()
    assert [path.name for path in (loop.folder / "models").iterdir()] == [model.id]
    assert loop.store.audit.verify().broken_at is None
