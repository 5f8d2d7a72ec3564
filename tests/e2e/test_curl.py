"""`curl`, as in the README."""

import json
import shutil
import subprocess

import pytest

from tests.support.stack import Served

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def _curl(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["curl", "-sS", "-N", "--noproxy", "*", "-w", "\n%{http_code}", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def _post(url: str, body: str) -> tuple[int, str]:
    return _curl(url, "-H", "Content-Type: application/json", "-d", body)


def test_a_streamed_answer_comes_as_events(stack: Served) -> None:
    body = {
        "model": "medmax-phantom",
        "stream": True,
        "max_tokens": 4,
        "messages": [{"role": "user", "content": "hi"}],
    }
    status, text = _post(f"{stack.http}/v1/chat/completions", json.dumps(body))
    lines = [line for line in text.splitlines() if line]
    assert status == 200
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[0][6:])["object"] == "chat.completion.chunk"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("{", "body"),
        ("[]", "body"),
        ('{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', "temperature"),
        ('{"messages": [{"role": "user", "content": "x"}], "temperature": 9}', "temperature"),
        ('{"messages": [{"role": "user", "content": "x"}], "surprise": 1}', "surprise"),
        ('{"messages": []}', "messages"),
    ],
)
def test_bad_input_is_named_and_the_server_goes_on(stack: Served, body: str, param: str) -> None:
    status, text = _post(f"{stack.http}/v1/chat/completions", body)
    assert status == 400
    assert json.loads(text)["error"]["param"] == param
    assert "Traceback" not in text
    assert _curl(f"{stack.http}/readyz")[0] == 200


def test_unknown_addresses_are_404_in_the_same_shape(stack: Served) -> None:
    status, text = _curl(f"{stack.http}/v1/nothing")
    assert status == 404
    assert json.loads(text)["error"]["code"] == "not_found"


def test_the_callers_request_id_comes_back_once(stack: Served) -> None:
    _, text = _curl("-i", "-H", "X-Request-ID: ward-7", f"{stack.http}/healthz")
    assert [line for line in text.lower().splitlines() if line.startswith("x-request-id")] == [
        "x-request-id: ward-7"
    ]


def test_metrics_count_the_requests_of_every_service(stack: Served) -> None:
    _post(
        f"{stack.http}/v1/chat/completions",
        '{"max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}',
    )
    assert stack.metric("medmax_requests_total", service="gateway", code="ok") >= 1
    assert stack.metric("medmax_requests_total", service="llm", method="Generate") >= 1


def test_docs_are_served_from_here(stack: Served) -> None:
    status, text = _curl(f"{stack.http}/docs")
    assert status == 200
    assert "https://" not in text
