"""A training whose controller dies. What is learnt, measured, promoted and served is shown in test_review_loop.py."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from annotation.core import Decision, Severity, Verdict
from annotation.loop.commands import medmax
from annotation.loop.context import Loop
from annotation.loop.steps import STEPS
from annotation.loop.steps.clean import release
from annotation.store import State, What
from evaluation.phantoms import held_out
from services.config import load
from tests.support.review import answers
from tests.support.review_loop import Site, wait_for
from tests.unit.annotation.loop_samples import publish_all, say
from tests.unit.gateway.rest_server import serving


@contextmanager
def gateway(site: Site) -> Iterator[str]:
    """The address of the gateway's own server, in this process, with the services behind it."""
    with serving(load(data_dir=site.folder / "var", threads=1)) as server:
        yield server.url


def taught(loop: Loop, right: str) -> str:
    """A data-set version in which two experts corrected every answer; its id."""
    for name in ("route", "clean"):
        assert STEPS[name].run(loop).done
    for entry in loop.store.items.page(State.HELD):
        release(loop, entry.key, "test")
    for key in publish_all(loop):
        verdict = Verdict(decision=Decision.EDIT, text=right, error="not_answered", severity=Severity.MINOR)
        say(loop, key, {"1": verdict, "2": verdict})
    STEPS["judge"].run(loop)
    assert STEPS["build"].run(loop).done
    (version,) = loop.store.versions.all(What.DATA)
    return version.id


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_whose_controller_was_killed_is_waited_for_and_not_doubled(tmp_path: Path) -> None:
    site = Site(
        tmp_path,
        {
            "port": 0,
            "routing": {"random_share": 1.0, "random_reserve": 0.9},
            "dataset": {"min_judged": 1, "validation_share": 0},
            "train": {"enabled": True, "min_rows": 1, "epochs": 30, "batch": 1},
            "steps": {"lease_s": 1, "interval_s": 0.3, "backoff_s": 1},
        },
    )
    with gateway(site) as url:
        answers(url, list(held_out(41, 3)), consent_training=True)
    with site.opened() as loop:
        taught(loop, "no")
        process = site.start()
        wait_for(lambda: bool(list(loop.folder.glob("models/*/work"))), 120, "training began", process)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        again = site.start()
        try:
            wait_for(lambda: bool(loop.store.versions.all(What.MODEL)), 300, "it is trained", again)
        finally:
            again.send_signal(signal.SIGTERM)
            assert again.wait(60) == 0
        (candidate,) = loop.store.versions.all(What.MODEL)
        assert medmax(loop, tmp_path / "look", "inspect", candidate.path)
        assert sum(loop.store.figures.counts()[State.BUILT].values()) == 3


class Killed(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pairs_are_learnt_on_what_the_rows_gave_and_a_kill_between_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"enabled": True, "min_rows": 1, "epochs": 2, "batch": 1, "preferences": 2}
    site = Site(
        tmp_path,
        {
            "routing": {"random_share": 1.0, "random_reserve": 0.9},
            "dataset": {"min_judged": 1, "validation_share": 0},
            "train": train,
        },
    )
    with gateway(site) as url:
        answers(url, list(held_out(43, 3)), consent_training=True)
    with site.opened() as loop:
        taught(loop, "perhaps")  # which the model never says, so that every answer is corrected

        def die(name: str) -> None:
            if name == "train.merged":
                raise Killed

        with monkeypatch.context() as patched:
            patched.setattr("annotation.loop.steps.train.point", die)
            with pytest.raises(Killed):
                STEPS["train"].run(loop)
        (folder,) = loop.folder.glob("models/*")
        learnt = (folder / "adapter/adapter_model.safetensors").stat()
        assert not (folder / "adapter-pairs").exists()
        assert STEPS["train"].run(loop).done == 1
        assert (folder / "adapter/adapter_model.safetensors").stat() == learnt
        assert (folder / "adapter-pairs/adapter_model.safetensors").exists()
        (candidate,) = loop.store.versions.all(What.MODEL)
        digests = {
            medmax(loop, tmp_path / "look", "inspect", str(each))["digest"]
            for each in (loop.checkpoint, folder / "checkpoint-rows", candidate.path)
        }
        assert len(digests) == 3, "both parts changed the weights"
