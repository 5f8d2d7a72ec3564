"""The stack of `medmax serve` on this machine as the target of a roll-out, and files as its record.

`medmax serve` reads what is wanted from a file and writes what is so into another (`services.deployments.redeploy`),
as a Kubernetes object has a specification and a status. So nobody needs the token of its Ray.
"""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import IO, Any

from services.deployments.redeploy import Desk, Observed, Wanted
from services.errors import ConfigurationError, InvalidInput, NotFound
from services.rollout.record import Book, Event, Rollout, person
from services.rollout.target import Conflict, State, Taken
from services.rollout.version import Change, Version

POLL_S = 0.25


class LocalStack:
    """
    Args:
        desk: the files through which the stack is told and tells.
        url: where it answers, for people.
    """

    def __init__(self, desk: Desk, url: str) -> None:
        self._desk, self._url = desk, url

    @property
    def name(self) -> str:
        return f"medmax serve at {self._url}"

    def read(self) -> State:
        observed, wanted = self._desk.observed(), self._desk.wanted()
        if observed is None or wanted is None or not observed.alive:
            raise NotFound(
                f"no `medmax serve` with this data folder answers at {self._url}; start it, name its address with "
                "--gateway and its folder with MEDMAX_DATA_DIR, or name a RayService with --rayservice"
            )
        current = observed.generation >= wanted.generation
        return State(
            version=Version(wanted.checkpoint, wanted.model_id, wanted.vqgan),
            generation=wanted.generation,
            observed=observed.generation,
            ready=current and observed.healthy,
            taking=current and observed.healthy,
            failed=_failure(observed) if current else "",
            detail=_detail(observed) if current else "the stack has not seen the change yet",
            cluster="",
            source=wanted,
        )

    def undo_of(self, state: State, change: Change) -> Change:
        if change.new_cluster:
            field = "image" if change.images else "env"
            raise InvalidInput("only a RayService has pods; name one with --rayservice", field=field)
        return Change(state.version)

    def holds(self, state: State, change: Change) -> bool:
        return change.version.serves_as(state.version)

    def preview(self, state: State, change: Change) -> str:
        before, after = (
            [f"{key}: {value}" for key, value in each.settings.items()]
            for each in (state.version, change.version)
        )
        lines = difflib.unified_diff(before, after, "settings (now)", "settings (then)", lineterm="")
        return "".join(f"{line}\n" for line in lines)

    def how(self, state: State, change: Change) -> str:
        return "Serve replaces replicas in place; a service with one replica makes requests wait meanwhile"

    def apply(self, state: State, change: Change, rollout: str) -> State:
        wanted = Wanted(state.generation + 1, rollout, change.version.checkpoint, change.version.model_id)
        wanted.vqgan = change.version.vqgan
        if not self._desk.want(wanted, instead_of=state.generation):
            raise Conflict(f"{self.name} was changed meanwhile")
        return self.read()

    def wait(self, state: State, seconds: float) -> None:
        limit, before = time.monotonic() + seconds, self._desk.stamp()
        while time.monotonic() < limit and self._desk.stamp() == before:
            time.sleep(min(POLL_S, max(0.0, limit - time.monotonic())))


def _failure(observed: Observed) -> str:
    if observed.refused:
        return f"the stack refuses it: {observed.refused}"
    return f"Serve cannot deploy it: {observed.message or 'no reason given'}" if observed.failed else ""


def _detail(observed: Observed) -> str:
    sick = [
        f"{name} {status}" for name, status in sorted(observed.deployments.items()) if status != "HEALTHY"
    ]
    return f"application {observed.status}" + (f" ({', '.join(sick)})" if sick else "")


class FileLedger:
    """`rollout.json` holds the last roll-out, and its last events until they are in `rollouts.jsonl`, which only grows."""

    def __init__(self, folder: Path) -> None:
        self._current, self._history = folder / "rollout.json", folder / "rollouts.jsonl"

    def read(self) -> Book:
        try:
            kept, lines = self._kept(), self._lines()
            lines += [line for line in kept["events"] if line not in lines]
            rollout = Rollout.from_json(kept["rollout"]) if kept["rollout"] else None
            return Book(rollout, [Event.from_json(json.loads(line)) for line in lines], str(kept["revision"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{self._current.name} or {self._history.name} below MEDMAX_DATA_DIR is damaged or out of reach "
                f"({type(error).__name__})"
            ) from None

    def write(self, book: Book) -> None:
        self._current.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self._current.with_suffix(".lock")):
            now = self.read()
            if now.revision != book.revision:
                raise Conflict("the record of roll-outs was written meanwhile")
            self._append(self._kept()["events"])  # of a writer that was killed before it came so far
            known = {json.dumps(event.to_json()) for event in now.history}
            new = [line for event in book.history if (line := json.dumps(event.to_json())) not in known]
            kept = {"revision": int(book.revision) + 1, "events": new}
            kept["rollout"] = book.current.to_json() if book.current else None
            part = self._current.with_suffix(".part")
            part.write_text(json.dumps(kept))
            part.replace(self._current)
            self._append(new)

    def _kept(self) -> dict[str, Any]:
        if not self._current.exists():
            return {"revision": 0, "events": [], "rollout": None}
        found: dict[str, Any] = json.loads(self._current.read_text())
        return found

    def _lines(self) -> list[str]:
        text = self._history.read_text() if self._history.exists() else ""
        whole, _, _ = text.rpartition(
            "\n"
        )  # a line cut short belongs to a killed writer, and is in the other file
        return [line for line in whole.splitlines() if line]

    def _append(self, lines: list[str]) -> None:
        missing = [line for line in lines if line not in self._lines()]
        if not missing:
            return
        with self._history.open("a+b") as file:
            file.truncate(self._history.read_bytes().rfind(b"\n") + 1)
            file.write("".join(f"{line}\n" for line in missing).encode())
            file.flush()
            os.fsync(file.fileno())


class FileLock:
    """A lock of the kernel's on a file: it ends with its holder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            file.close()
            raise Taken(f"another roll-out is conducted by {holder}; see `medmax rollout status`") from None
        file.truncate(0)
        file.write(f"{person()}, process {os.getpid()}")
        file.flush()
        self._file = file

    def renew(self) -> None:
        """The kernel keeps it."""

    def release(self) -> None:
        if self._file:
            self._file.close()
            self._file = None


class locked:
    """A short lock around a change of files."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = self._path.open("a")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *raised: Any) -> None:
        self._file.close()
