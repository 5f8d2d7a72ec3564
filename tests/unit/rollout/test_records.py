"""What is kept of roll-outs on this machine."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from services.errors import ConfigurationError
from services.rollout.limits import Limits
from services.rollout.local import FileLedger, FileLock
from services.rollout.measured import Measured
from services.rollout.record import Book, Event, Phase, Rollout, new_id
from services.rollout.target import Conflict, Taken, amend
from services.rollout.version import Change, Version

OLD, NEW = Version("/models/old", "m"), Version("/models/new", "m", digest="a" * 64)


def rollout() -> Rollout:
    change = Change(NEW, {"llm": "x:1"}, {"A": "b", "C": None})
    undo = Change(OLD, {"llm": "x:0"}, {"A": None, "C": "d"})
    return Rollout(
        new_id(1e9), "Nurse", "why", change, undo, Limits(), baseline=Measured({"ok": 3}, {float("inf"): 3})
    )


def event(what: str, at: float = 1e9) -> Event:
    return rollout().event(what, "Nurse", "", at)


def test_a_roll_out_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    ledger, kept = FileLedger(tmp_path), rollout()
    ledger.write(Book(kept, [event("started")], ledger.read().revision))
    found = ledger.read()
    assert found.current == kept
    assert [each.what for each in found.history] == ["started"]
    assert found.current is not None
    assert found.current.phase is Phase.BASELINE


def test_a_stale_copy_is_not_written_over_a_newer_one(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path)
    first, second = ledger.read(), ledger.read()
    ledger.write(first)
    with pytest.raises(Conflict):
        ledger.write(second)


def test_no_event_is_lost_when_many_write_at_once(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path)

    def write(number: int) -> None:
        for _ in range(50):
            try:
                amend(ledger, lambda book: event(f"e{number}", 1e9 + number))
                return
            except Conflict:
                time.sleep(0.001 * number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.what for each in ledger.read().history) == sorted(f"e{number}" for number in range(12))


def test_a_writer_killed_between_its_two_files_loses_and_doubles_nothing(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path)
    amend(ledger, lambda book: event("one"))
    amend(ledger, lambda book: event("two", 1e9 + 1))
    lines = (tmp_path / "rollouts.jsonl").read_text()
    (tmp_path / "rollouts.jsonl").write_text(lines[:-20])  # as if it was killed while it wrote the second
    assert [each.what for each in ledger.read().history] == ["one", "two"]
    amend(ledger, lambda book: event("three", 1e9 + 2))
    assert [json.loads(line)["what"] for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()] == [
        "one",
        "two",
        "three",
    ]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "rollout.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"rollout\.json"):
        FileLedger(tmp_path).read()


def test_one_conductor_at_a_time(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    first.acquire()
    with pytest.raises(Taken, match="another roll-out is conducted by"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
