"""One JSON object per line, and nothing of a patient in it."""

import io
import json
import logging

import pytest

from services import logs
from services.errors import InternalError, InvalidInput


def test_a_record_is_one_json_line_with_the_requests_id() -> None:
    stream = io.StringIO()
    logs.configure("llm", stream=stream)
    logs.REQUEST_ID.set("r-1")
    logging.getLogger("services.llm").info("done\nwell", extra={"facts": {"ms": 3.5}})
    entry = json.loads(stream.getvalue())
    assert (entry["service"], entry["message"], entry["request_id"], entry["ms"]) == (
        "llm",
        "done\nwell",
        "r-1",
        3.5,
    )


def test_an_exceptions_message_stays_out() -> None:
    stream = io.StringIO()
    logs.configure("llm", stream=stream)
    try:
        raise ValueError("patient Mü" + "ller")
    except ValueError:
        logging.getLogger("services.llm").exception("failed")
    entry = json.loads(stream.getvalue())
    assert "Müller" not in stream.getvalue()
    assert entry["exception"] == "ValueError"
    assert "test_logs.py" in entry["traceback"]


def test_configuring_twice_does_not_log_twice() -> None:
    stream = io.StringIO()
    logs.configure("llm", stream=io.StringIO())
    logs.configure("llm", stream=stream)
    logging.getLogger("services.x").warning("once")
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "kept"), [(InvalidInput("no such field"), False), (InternalError("x"), True), (OSError(), True)]
)
def test_serve_logs_our_failures_and_not_a_callers_mistakes(error: Exception, kept: bool) -> None:
    logs.configure("gateway")
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    serve = logging.getLogger("ray.serve")
    serve.addHandler(handler)
    try:
        serve.error("Request failed.", exc_info=error)
    finally:
        serve.removeHandler(handler)
    assert bool(seen) is kept
