"""The review loop with real servers: answers of the model, a real Label Studio, scripted experts, data, a model."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from annotation.core import Kind
from annotation.dataset.versions import load as load_version
from annotation.dataset.versions import verify
from annotation.labelstudio.server import Server
from annotation.loop.steps.clean import release
from annotation.store import State, What
from tests.support.review import Script, ask, expected, gold, recorded
from tests.support.review_loop import Panel, Site, free_port, wait_for

INTERACTIONS = int(
    os.environ.get("MEDMAX_TEST_INTERACTIONS", "48")
)  # and 12 more items of alternatives: 60 in all, about


def site(folder: Path, server: Server, **values: object) -> Site:
    token: SecretStr = server.admin.token
    return Site(
        folder,
        {
            "port": free_port(),
            "labelstudio": {"url": server.url, "token": token.get_secret_value(), "reconcile_minutes": 0.2},
            "dataset": {"min_judged": 10_000},  # built by hand
            "routing": {"random_share": 1.0, "random_reserve": 0.9, "per_day": 1000},
            "assign": {"gold_share": 0},
            "steps": {"lease_s": 3, "interval_s": 0.3, "route_interval_s": 2, "backoff_s": 2},
            "assistant": {"url": "local", "temperature": 2.0},  # else it says the same again
            **values,
        },
    )


@pytest.mark.timeout(1200)
@pytest.mark.slow
def test_every_row_is_what_the_experts_said_though_the_receiver_was_down_for_a_while(
    tmp_path: Path, labelstudio_server: Server
) -> None:
    server = labelstudio_server
    logins = Panel.enrol(server, ["ada", "ben", "cyd", "dee", "eve", "fay"])
    *reviewers, adjudicator = logins
    here = site(
        tmp_path,
        server,
        preference_share=0.4,
        experts=[
            *({"id": id, "max_daily": 10_000, "max_open": 100} for id in reviewers),
            {"id": adjudicator, "adjudicator": True, "max_daily": 10_000},
        ],
    )
    asked = {one.id: one for one in ask(here.base, INTERACTIONS)}
    golden = {one.id: one for one in gold(6)}
    script = Script(reviewers[:3], reviewers[3:], adjudicator, asked, golden)
    panel = Panel(server, script, logins)
    with here.opened() as loop:
        for item in golden.values():
            loop.store.items.add_gold(item, "test")

        def count(*states: State) -> int:
            found = loop.store.figures.counts()
            return sum(n for state in states for n in found.get(state, {}).values())

        with here.running():
            waiting = (State.ROUTED, State.CLEANED)
            wait_for(lambda: count(*State) >= len(asked) + len(golden), 300, "all are routed")
            wait_for(lambda: not count(*waiting), 600, "all are cleaned")
            # Some drawings look like letters to the reader of text; a person looks at those.
            held = loop.store.items.page(State.HELD, limit=1000)
            assert len(held) < len(asked) / 4, [loop.store.items.report(entry.key) for entry in held]
            for entry in held:
                release(loop, entry.key, "test")
            wait_for(lambda: not count(*waiting, State.HELD), 120, "all are published")
            # Everybody does the gold tasks first, so that it is known who is unreliable.
            for entry in loop.store.items.gold_page(limit=1000):
                for expert in reviewers:
                    assert entry.ls_task is not None
                    panel.submit(expert, entry.key, entry.ls_task)
            panel.work(loop, reviewers[:2])
            wait_for(lambda: not loop.store.figures.inbox()[0], 60, "the inbox is empty")
        # Nobody listens while these are given.
        panel.work(loop, reviewers[2:])
        with here.running():
            limit = time.monotonic() + 300
            while count(State.PUBLISHED) > len(golden) or count(State.COLLECTED, State.ADJUDICATION):
                panel.work(loop, [*reviewers, adjudicator])
                assert time.monotonic() < limit, loop.store.figures.counts()
                time.sleep(0.5)
            status = here.review("status")
        assert all(status["states"].get(state) is None for state in ("routed", "collected", "adjudication"))
        unreliable = {each["id"] for each in status["experts"] if each["unreliable"]}
        assert unreliable == set(script.bad)

        built = here.review("build")
        version = load_version(loop.datasets, built["version"])
        assert verify(version) == []
        found = recorded(version)
        wanted = expected(asked.values())
        for file in ("rows", "unpaired"):
            assert len(found[file]) == len(set(found[file])), "a row is there twice"
            assert set(found[file]) == wanted[file]
        ranked = [record for record in found["preferences"] if record[1] == "ranking"]
        corrected = {record for record in found["preferences"] if record[1] == "correction"}
        assert len(found["preferences"]) == len(set(found["preferences"]))
        assert_rankings(loop, script, ranked, wanted["preferences"] - corrected)
        assert corrected <= wanted["preferences"]
        assert loop.store.audit.verify().broken_at is None
        (recorded_version,) = loop.store.versions.all(What.DATA)
        assert recorded_version.id == version.digest
        assert count(State.BUILT) == loop.store.versions.size(version.digest)
        assert not count(State.JUDGED)


def assert_rankings(
    loop: object, script: Script, ranked: list[tuple[str, ...]], elsewhere: set[tuple[str, ...]]
) -> None:
    """Each ranked item gave its pair; one that says what a correction says stands for both."""
    store = loop.store  # type: ignore[attr-defined]
    said = {(prompt, chosen, rejected) for _, _, prompt, chosen, rejected in ranked}
    keys = [e.key for e in store.items.page(State.BUILT, limit=1000) if e.kind is Kind.PREFERENCE]
    assert keys, "no alternatives were drawn"
    for key in keys:
        item = store.items.load(key)
        texts = ["".join(part for part in parts if isinstance(part, str)) for parts in item.alternatives]
        first, second = script.truth(item.id, Kind.PREFERENCE).ranking
        asked = script.asked[item.id]
        pair = (f"<image>{asked.question}", texts[first], texts[second])
        as_correction = (item.id, "correction", *pair)
        assert pair in said or as_correction not in elsewhere, key
    assert all(
        (id, "correction", *rest) in {(i, "correction", *r) for i, _, *r in ranked}
        for id, _, *rest in elsewhere
    )
