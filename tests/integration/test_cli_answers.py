"""ask, draw and chat, in process and over REST, on a tiny model whose answers are noise but repeatable."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from PIL import Image

from services.commands.output import printable
from services.config import load
from services.gateway.local import local_assistant
from services.gateway.rest import create_app
from tests.support.tiny import tiny_checkpoint
from tests.unit.cli.medmax import medmax

KEY = "a key for tests"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[str]:
    """Address of a server without Ray, which wants a key."""
    settings = load(
        checkpoint=checkpoint,
        data_dir=tmp_path_factory.mktemp("data"),
        threads=1,
        api_keys=f"tests:{KEY}",
    )
    address: list[str] = []
    up = threading.Event()

    async def run() -> None:
        async with local_assistant(settings) as assistant:
            config = uvicorn.Config(create_app(assistant, settings), port=0, log_level="error")
            uvicorn_server = uvicorn.Server(config)
            running = asyncio.create_task(uvicorn_server.serve())
            while not uvicorn_server.started:
                await asyncio.sleep(0.01)
            port = uvicorn_server.servers[0].sockets[0].getsockname()[1]
            address.append(f"http://127.0.0.1:{port}")
            up.set()
            await asyncio.to_thread(down.wait)
            uvicorn_server.should_exit = True
            await running

    down = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert up.wait(60)
    yield address[0]
    down.set()
    thread.join(30)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.png"
    Image.radial_gradient("L").resize((64, 64)).save(path)
    return path


@pytest.fixture
def remote(server: str) -> dict[str, str]:
    return {"MEDMAX_SERVER": server, "MEDMAX_API_KEY": KEY}


ASK = ("ask", "film.png", "What is shown?", "--seed", "7", "--max-tokens", "12", "--json")


def test_ask_answers_the_same_in_process_and_over_rest(
    tmp_path: Path, film: Path, checkpoint: Path, remote: dict[str, str]
) -> None:
    here = medmax(tmp_path, *ASK, "--local", MEDMAX_CHECKPOINT=str(checkpoint), **remote)
    there = medmax(tmp_path, *ASK, **remote)
    assert here.status == there.status == 0
    assert "into this process" in here.err
    assert f"asking the server at {remote['MEDMAX_SERVER']}" in there.err
    assert here.document.keys() == there.document.keys()
    for field in ("answer", "usage", "model", "model_digest", "finish_reason"):
        assert here.document[field] == there.document[field]
    assert here.document["confidence"] == pytest.approx(there.document["confidence"])
    document = there.document
    assert 0 < document["confidence"] < 1
    # What ends a turn is counted as work, and is no text to be sure of.
    ended = document["finish_reason"] == "stop"
    assert document["confidence_details"]["tokens"] == document["usage"]["completion_tokens"] - ended
    assert document["usage"]["seed"] == 7
    assert document["usage"]["prompt_image_tokens"] == 16
    assert document["latency_ms"] == document["latency_details"]["total_ms"] > 0
    assert here.document["interaction_id"] != document["interaction_id"]
    shown = medmax(tmp_path, "interactions", "show", here.document["interaction_id"], "--json")
    assert shown.document["usage"]["seed"] == "7"


def test_people_get_the_answer_on_stdout_and_the_rest_on_stderr(
    tmp_path: Path, film: Path, remote: dict[str, str]
) -> None:
    document = medmax(tmp_path, *ASK, **remote).document
    people = medmax(tmp_path, *ASK[:-1], **remote)
    assert people.status == 0
    assert "confidence" in people.err
    assert people.out == printable(document["answer"]) + "\n"
    assert not any(ord(character) < 32 for character in people.out.replace("\n", "").replace("\t", ""))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_draw_writes_a_picture_of_the_kind_that_the_name_says(
    tmp_path: Path, remote: dict[str, str], suffix: str
) -> None:
    name = f"drawn.{suffix}"
    result = medmax(tmp_path, "draw", "A film", "-o", name, "--seed", "3", "--size", "32", "--json", **remote)
    assert result.status == 0
    document = result.document
    with Image.open(tmp_path / name) as picture:
        assert picture.size == (32, 32) == (document["width"], document["height"])
        assert f"image/{(picture.format or '').lower()}" == document["mime_type"]
    assert document["usage"]["seed"] == 3
    assert document["interaction_id"].startswith("int_")
    assert 0 < document["confidence"] <= 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_draw_in_process_makes_the_same_picture(
    tmp_path: Path, checkpoint: Path, remote: dict[str, str]
) -> None:
    for name, environment in (("here.png", {"MEDMAX_CHECKPOINT": str(checkpoint)}), ("there.png", remote)):
        local = () if environment is remote else ("--local",)
        result = medmax(tmp_path, "draw", "A film", "-o", name, "--seed", "3", *local, **environment)
        assert result.status == 0
        assert result.out == f"{name}\n"
    with Image.open(tmp_path / "here.png") as here, Image.open(tmp_path / "there.png") as there:
        assert here.tobytes() == there.tobytes()
        assert here.text == there.text


CONVERSATION = "/help\nHello\n\n/picture film.png\nWhat is shown?\n/new\nAgain\n"


def test_chat_holds_a_conversation_through_stdin(tmp_path: Path, film: Path, remote: dict[str, str]) -> None:
    result = medmax(tmp_path, "chat", "--seed", "1", "--json", stdin=CONVERSATION, **remote)
    assert result.status == 0
    turns = result.document["turns"]
    assert [turn["user"]["text"] for turn in turns] == ["Hello", "What is shown?", "Again"]
    assert [turn["user"]["pictures"] for turn in turns] == [[], ["film.png"], []]
    assert [turn["assistant"]["usage"]["seed"] for turn in turns] == [1, 2, 3]
    for turn in turns:
        for part in turn["assistant"]["parts"]:
            if "picture" in part:
                with Image.open(tmp_path / part["picture"]) as picture:
                    picture.load()
    drawn = sum("picture" in part for turn in turns for part in turn["assistant"]["parts"])
    assert drawn == len(list((tmp_path / "out").glob("*"))) > 0


def test_chat_in_process_streams_text_for_people_and_goes_on_after_an_error(
    tmp_path: Path, film: Path, checkpoint: Path
) -> None:
    (tmp_path / "no-picture.png").write_text("no picture")
    conversation = (
        "/picture nowhere.png\nHello\n/new\n/picture no-picture.png\nLook\n/new\nHello\n/quit\nnever said\n"
    )
    result = medmax(
        tmp_path,
        "chat",
        "film.png",
        "--local",
        "--seed",
        "1",
        stdin=conversation,
        MEDMAX_CHECKPOINT=str(checkpoint),
    )
    assert result.status == 1
    assert "cannot read nowhere.png" in result.err
    assert "not a picture" in result.err
    assert result.out.strip()


def test_errors_of_either_way_have_the_commands_own_names(
    tmp_path: Path, checkpoint: Path, remote: dict[str, str]
) -> None:
    (tmp_path / "film.png").write_text("no picture")
    here = medmax(tmp_path, *ASK, "--local", MEDMAX_CHECKPOINT=str(checkpoint))
    there = medmax(tmp_path, *ASK, **remote)
    assert here.status == there.status == 1
    assert here.document == there.document
    assert here.document["error"]["code"] == "invalid_image"
    assert here.document["error"]["field"] == "PICTURE"


def test_a_wrong_key_is_refused(tmp_path: Path, film: Path, remote: dict[str, str]) -> None:
    result = medmax(tmp_path, *ASK, **{**remote, "MEDMAX_API_KEY": "wrong"})
    assert result.status == 1
    assert result.document["error"]["code"] == "unauthenticated"


def test_doctor_knows_our_server(tmp_path: Path, server: str, checkpoint: Path) -> None:
    port = server.rpartition(":")[2]
    result = medmax(tmp_path, "doctor", "--json", MEDMAX_HTTP_PORT=port, MEDMAX_CHECKPOINT=str(checkpoint))
    checks = {check["name"]: check for check in result.document["checks"]}
    assert result.document["ok"] is (result.status == 0)
    assert {"name", "status", "detail", "mend"} == checks["REST port"].keys()
    assert checks["REST port"]["status"] == "ok"
    assert "MedMax" in checks["REST port"]["detail"]
    assert checks["checkpoint"]["status"] == "ok"


def test_another_program_at_the_address_is_no_server(tmp_path: Path, film: Path) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"paths": {}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            result = medmax(tmp_path, *ASK, "--server", f"http://127.0.0.1:{other.server_port}")
        finally:
            other.shutdown()
            thread.join()
    assert result.status == 1
    assert result.document["error"]["code"] == "unavailable"
