"""The count of what a fault cost, and the faults that need no stack."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.chaos.account import Call, balance, read_store
from loadtests.chaos.faults import Database, Kill, Pause, strike
from loadtests.chaos.wire import Wire
from loadtests.samples import Sample
from services.interactions import InteractionStore
from tests.unit.interactions.samples import interaction, settings_in


def call(seed: int, code: str = "ok", stored: str = "") -> Call:
    return Call(seed, Sample("vqa", "grpc", 0.0, 0.0, 0.1, 0.2, code=code, interaction=stored))


def test_an_accepted_answer_that_is_not_in_the_store_is_lost() -> None:
    account = balance([call(1, stored="a"), call(2, stored="b")], [("a", 1)], [])
    assert (account.accepted, account.lost, account.clean) == (2, ["b"], False)


def test_an_accepted_answer_whose_pictures_cannot_be_read_is_lost() -> None:
    assert balance([call(1, stored="a")], [("a", 1)], ["a"]).lost == ["a"]


def test_an_id_that_belongs_to_another_request_is_lost() -> None:
    assert balance([call(1, stored="a")], [("a", 2)], []).lost == ["a"]


def test_a_request_that_is_stored_twice_is_doubled() -> None:
    account = balance([call(1, stored="a")], [("a", 1), ("b", 1)], [])
    assert (account.doubled, account.clean) == ([1], False)


def test_a_failure_must_say_why() -> None:
    account = balance([call(1, "unavailable"), call(2, "internal_error"), call(3, "stream_cut")], [], [])
    assert (account.unexplained, account.clean) == ([2, 3], False)
    assert account.failed == {"unavailable": 1, "internal_error": 1, "stream_cut": 1}


def test_an_answer_to_its_end_without_an_id_was_not_stored() -> None:
    assert balance([call(1)], [], []).unstored == [1]


def test_an_answer_whose_end_was_lost_on_the_way_is_counted_and_harmless() -> None:
    account = balance([call(1, "out_of_reach")], [("a", 1)], [])
    assert (account.unacknowledged, account.clean) == (1, True)


@given(st.lists(st.booleans(), max_size=30), st.data())
def test_nothing_is_lost_where_everything_accepted_is_stored(
    accepted: list[bool], data: st.DataObject
) -> None:
    calls = [call(n, "ok" if ok else "unavailable", f"id{n}" if ok else "") for n, ok in enumerate(accepted)]
    stored = [(f"id{n}", n) for n, ok in enumerate(accepted) if ok]
    assert balance(calls, stored, []).clean
    if stored:
        gone = data.draw(st.sampled_from(stored))
        assert balance(calls, [each for each in stored if each != gone], []).lost == [gone[0]]


async def test_the_store_tells_ids_seeds_and_what_cannot_be_read(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    whole, broken = interaction(), interaction()
    whole.sampling.seed, broken.sampling.seed = 41, 42
    picture = next(part.image for part in broken.prompt[0].parts if part.WhichOneof("part") == "image")
    picture.data = b"another picture"
    store = InteractionStore.open(settings)
    await store.save(whole)
    await store.save(broken)
    store.close()
    stored, unreadable = await read_store(settings, [whole.id, broken.id])
    assert (sorted(stored), unreadable) == (sorted([(whole.id, 41), (broken.id, 42)]), [])
    digest = hashlib.sha256(b"another picture").hexdigest()
    (path,) = tmp_path.rglob(digest)
    path.unlink()
    assert (await read_store(settings, [whole.id, broken.id]))[1] == [broken.id]


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Path]:
    """A Unix socket that answers what it is sent."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    near, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(near,), daemon=True).start()

        def answer(near: socket.socket) -> None:
            with near:
                while data := near.recv(100):
                    near.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)


def talk(connection: socket.socket) -> bytes:
    connection.sendall(b"hello")
    return connection.recv(100)


def test_a_wire_carries_is_cut_and_heals(echo: Path) -> None:
    wire = Wire(str(echo))
    with socket.create_connection(("127.0.0.1", wire.port), 10) as connection:
        assert talk(connection) == b"hello"
        wire.cut()
        assert connection.recv(100) == b""
    with (
        socket.create_connection(("127.0.0.1", wire.port), 10) as refused,
        pytest.raises((OSError, AssertionError)),
    ):
        assert talk(refused) == b"hello"
    wire.heal()
    with socket.create_connection(("127.0.0.1", wire.port), 10) as connection:
        assert talk(connection) == b"hello"
    wire.close()


def test_a_stalled_wire_gives_what_it_held_back_when_it_heals(echo: Path) -> None:
    wire = Wire(str(echo))
    with socket.create_connection(("127.0.0.1", wire.port), 10) as connection:
        fault = Database(wire, "stalled", 0.3)

        def nothing_comes(seconds: float) -> None:
            connection.settimeout(seconds)
            with pytest.raises(TimeoutError):
                talk(connection)

        strike(fault, nothing_comes)
        connection.settimeout(10)
        assert connection.recv(100) == b"hello"
    wire.close()


def test_a_full_disk_has_no_byte_left_and_then_has(tmp_path: Path) -> None:
    """A limit on the size of a file stands for the disk."""
    code = (
        "import resource, sys; from pathlib import Path; from loadtests.chaos.faults import FullDisk\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        "fault = FullDisk(Path(sys.argv[1])); fault.begin()\n"
        "print((Path(sys.argv[1]) / 'ballast').stat().st_size); fault.end()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "10000"
    assert not list(tmp_path.iterdir())


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_pause_stops_a_process_and_lets_it_go_on() -> None:
    process = sleeper()
    served = SimpleNamespace(processes=lambda kind: [process.pid])
    seen: list[str] = []
    strike(
        Pause(served, "llm", 0.2),
        lambda _: (os.waitid(os.P_PID, process.pid, os.WSTOPPED), seen.append(state(process.pid)))[1],
    )  # type: ignore[arg-type]
    assert seen == ["T"]
    os.waitid(os.P_PID, process.pid, os.WCONTINUED)
    assert state(process.pid) != "T"
    process.kill()
    process.wait()


def test_a_kill_is_final_and_one_without_a_victim_says_so() -> None:
    process = sleeper()
    strike(Kill(SimpleNamespace(processes=lambda kind: [process.pid]), "llm"))  # type: ignore[arg-type]
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(RuntimeError, match="no llm process"):
        strike(Kill(SimpleNamespace(processes=lambda kind: []), "llm"))  # type: ignore[arg-type]
