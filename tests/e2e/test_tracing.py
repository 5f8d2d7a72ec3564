"""One trace through every process: the application's deployments over Serve handles, the decoder by address.

And what is planted in requests comes out in no span, log or metric.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest

from services.pb.medmax.v1 import assistant_pb2, assistant_pb2_grpc
from tests.support.collector import Collector, collecting
from tests.support.pictures import dicom, noise
from tests.support.stack import Served, running

PLANTED = ("Zebulonius", "Quartermaine", "1953-02-28", "MRN4471193")
WORDS = " ".join(PLANTED)
OTEL = {"OTEL_BSP_SCHEDULE_DELAY": "200", "NO_PROXY": "127.0.0.1"}
serving = contextmanager(running)


@dataclass
class Traced:
    """The gateway's stack, the decoder that it calls by address, and the collector of both."""

    stack: Served
    decoder: Served
    collector: Collector

    def post(self, path: str, body: dict, **headers: str) -> httpx.Response:
        return httpx.post(
            f"{self.stack.http}{path}", json=body, headers=headers, trust_env=False, timeout=120
        )

    def logs(self) -> Iterator[tuple[str, str]]:
        """Every line that any process of the stack has written to a log, and its file."""
        for file in [self.decoder.log, self.stack.log, *Path(self.stack.facts["logs"]).rglob("*")]:
            if file.is_file():
                for line in file.read_text(errors="replace").splitlines():
                    yield file.name, line

    def ours(self) -> list[dict]:
        """Our own records among them."""
        found = []
        for _, line in self.logs():
            if line.startswith('{"time"'):
                found.append(json.loads(line))
        return found


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("traced")
    with collecting() as collector, ExitStack() as stack:
        environment = {**OTEL, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        alone = ("decoder", "--port", "0", "--checkpoint", str(model))
        decoder = stack.enter_context(serving(folder / "decoder", *alone, **environment))
        environment["MEDMAX_DECODER_ADDRESS"] = decoder.grpc
        ports = ("--http-port", "0", "--grpc-port", "0", "--checkpoint", str(model))
        yield Traced(
            stack.enter_context(serving(folder / "stack", *ports, **environment)), decoder, collector
        )


def trace_parent(flags: str = "01") -> tuple[str, str]:
    """A trace's id, and the header of a caller that began it."""
    trace = secrets.token_hex(16)
    return trace, f"00-{trace}-{secrets.token_hex(8)}-{flags}"


def film(**attributes: str) -> str:
    data = dicom(noise(64, 64, 1), **attributes)
    return "data:application/dicom;base64," + base64.b64encode(data).decode()


def body(text: str, *urls: str, **fields: object) -> dict:
    content = [*({"type": "image_url", "image_url": {"url": url}} for url in urls)]
    return {"messages": [{"role": "user", "content": [*content, {"type": "text", "text": text}]}], **fields}


TREE = """\
gateway gateway/chat_completions server
  gateway gateway/answer internal
    gateway tokenizer/Tokenize client
      tokenizer tokenizer/Tokenize server
    gateway llm/Generate client
      llm llm/Generate server
        llm llm/answer internal
    gateway decoder/Decode client
      decoder decoder/Decode server
    gateway interactions/save internal"""


def test_a_caller_s_trace_goes_through_every_process(traced: Traced) -> None:
    trace, parent = trace_parent()
    reply = traced.post(
        "/v1/chat/completions",
        body("a chest radiograph", film(), modalities=["image"]),
        traceparent=parent,
        **{"x-request-id": "r-tree"},
    )
    assert reply.status_code == 200, reply.text
    collector = traced.collector
    collector.wait(lambda: len(collector.trace(trace)) >= len(TREE.splitlines()))
    assert collector.tree(trace) == TREE
    spans = {(span.service, span.name, span.kind): span for span in collector.trace(trace)}
    assert spans["gateway", "gateway/chat_completions", "server"].parent == parent.split("-")[2]
    assert {span.facts["medmax.request_id"] for span in spans.values()} == {"r-tree"}
    assert not [span.name for span in spans.values() if span.failed or "error.type" in span.facts]

    answer = spans["llm", "llm/answer", "internal"]
    usage = reply.json()["usage"]
    assert answer.facts["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert answer.facts["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert answer.facts["medmax.pictures"] == 1
    moments = dict(answer.events)
    assert 0 <= moments["begun"] <= moments["picture begun"] <= moments["first token"]
    assert moments["first token"] < moments["picture finished"] <= answer.ms + 1
    assert answer.facts["medmax.first_token_ms"] == pytest.approx(moments["first token"], abs=1)

    tokenizer = spans["gateway", "tokenizer/Tokenize", "client"]
    assert tokenizer.facts["medmax.cached"] is False
    decoder = spans["gateway", "decoder/Decode", "client"]
    assert [link.span_id.hex() for link in decoder.message.links] == [
        spans["gateway", "llm/Generate", "client"].id
    ]


def test_grpc_metadata_carries_a_trace_and_a_stream_ends_well(traced: Traced) -> None:
    trace, parent = trace_parent()
    message = assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=[assistant_pb2.Part(text="hello")])
    request = assistant_pb2.GenerateRequest(messages=[message], max_new_tokens=4)
    request.context.request_id = "r-grpc"
    with grpc.insecure_channel(traced.stack.grpc) as channel:
        stub = assistant_pb2_grpc.AssistantStub(channel)
        list(stub.Generate(request, timeout=60, metadata=[("traceparent", parent)]))
    collector = traced.collector
    collector.wait(lambda: len(collector.trace(trace)) >= 6)
    assert collector.tree(trace) == "\n".join(
        [
            "gateway gateway/Generate server",
            "  gateway gateway/answer internal",
            "    gateway llm/Generate client",
            "      llm llm/Generate server",
            "        llm llm/answer internal",
            "    gateway interactions/save internal",
        ]
    )
    assert {span.facts["medmax.request_id"] for span in collector.trace(trace)} == {"r-grpc"}
    assert not [span.name for span in collector.trace(trace) if "error.type" in span.facts]


def test_a_trace_that_its_caller_does_not_sample_is_not_sent(traced: Traced) -> None:
    unsampled, parent = trace_parent(flags="00")
    assert (
        traced.post("/v1/chat/completions", body("hi", max_tokens=2), traceparent=parent).status_code == 200
    )
    later, parent = trace_parent()
    assert (
        traced.post("/v1/chat/completions", body("hi", max_tokens=2), traceparent=parent).status_code == 200
    )
    traced.collector.wait(lambda: len(traced.collector.trace(later)) >= 6)
    assert not traced.collector.trace(unsampled)


def test_a_caller_s_mistake_is_told_where_it_was_found_and_is_no_server_s_fault(traced: Traced) -> None:
    trace, parent = trace_parent()
    picture = "data:image/png;base64," + base64.b64encode(b"no picture").decode()
    assert traced.post("/v1/chat/completions", body("hi", picture), traceparent=parent).status_code == 400
    collector = traced.collector
    collector.wait(lambda: len(collector.trace(trace)) >= 4)
    found = {
        (span.name, span.kind): (span.facts.get("error.type"), span.failed) for span in collector.trace(trace)
    }
    assert found == {
        ("gateway/chat_completions", "server"): ("invalid_image", False),
        ("gateway/answer", "internal"): ("invalid_image", True),
        ("tokenizer/Tokenize", "client"): ("invalid_image", True),
        ("tokenizer/Tokenize", "server"): ("invalid_image", False),
    }


def test_what_is_planted_in_requests_comes_out_nowhere(traced: Traced) -> None:
    trace, parent = trace_parent()
    shown = film(PatientName=WORDS, PatientID=PLANTED[3], StudyDescription=WORDS)
    asked = body(WORDS, shown, modalities=["text", "image"], max_tokens=200, user=WORDS, stop=[PLANTED[0]])
    reply = traced.post("/v1/chat/completions", asked, traceparent=parent)
    assert reply.status_code == 200, reply.text
    id = reply.json()["interaction_id"]
    assert id
    # Wrong in every place where a word can stand.
    headers = {
        "x-request-id": WORDS,
        "traceparent": WORDS,
        "tracestate": f"a={PLANTED[0]}",
        "baggage": f"patient={PLANTED[0]}",
        "user-agent": WORDS,
        "authorization": f"Bearer {PLANTED[0]}",
    }
    for wrong in (
        body(WORDS, model=PLANTED[0]),
        body(WORDS, modalities=[PLANTED[0]]),
        body(WORDS, f"https://{PLANTED[0]}.example/{PLANTED[1]}.png"),
        body(WORDS, "data:image/png;base64," + base64.b64encode(WORDS.encode()).decode()),
        {PLANTED[0]: WORDS, **body(WORDS)},
    ):
        assert traced.post("/v1/chat/completions", wrong, **headers).status_code in {400, 404}
    comment = {"interaction_id": id, "comment": WORDS, "corrected_text": WORDS}
    traced.post("/v1/feedback", comment, **headers)
    for path in (f"/v1/interactions/{PLANTED[0]}?of={PLANTED[1]}", f"/{PLANTED[0]}"):
        reply = httpx.get(f"{traced.stack.http}{path}", headers=headers, trust_env=False)
        assert reply.status_code in {400, 404}
    message = assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=[assistant_pb2.Part(text=WORDS)])
    request = assistant_pb2.GenerateRequest(messages=[message], model=PLANTED[0])
    request.context.request_id = WORDS
    with grpc.insecure_channel(traced.stack.grpc) as channel:
        stub = assistant_pb2_grpc.AssistantStub(channel)
        for id in (WORDS, "r-model"):
            request.context.request_id = id
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.Generate(request, timeout=60, metadata=[("traceparent", PLANTED[0])]))
            assert caught.value.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    last, parent = trace_parent()
    traced.post("/v1/chat/completions", body("hi", max_tokens=2), traceparent=parent)
    collector = traced.collector
    collector.wait(lambda: len(collector.trace(last)) >= 6 and len(collector.trace(trace)) >= 8)

    everything = {"spans": b"".join(collector.raw).decode(errors="replace")}
    everything["metrics"] = httpx.get(f"{traced.stack.http}/metrics", trust_env=False).text
    for file, line in traced.logs():
        everything[file] = everything.get(file, "") + line + "\n"
    assert {"spans", "metrics", "stderr.log"} < everything.keys()
    told = {(word, place) for word in PLANTED for place, text in everything.items() if word in text}
    assert not told


def test_every_process_logs_json_with_the_request_and_its_trace(traced: Traced) -> None:
    trace, parent = trace_parent()
    asked = body("a chest radiograph", film(), modalities=["image"])
    headers = {"traceparent": parent, "x-request-id": "r-logs"}
    assert traced.post("/v1/chat/completions", asked, **headers).status_code == 200

    def lines() -> list[dict]:
        return [entry for entry in traced.ours() if entry.get("request_id") == "r-logs"]

    traced.collector.wait(
        lambda: {entry["service"] for entry in lines()} >= {"gateway", "tokenizer", "llm", "decoder"}
    )
    requests = [entry for entry in lines() if entry["message"] == "request"]
    assert {(entry["service"], entry["method"], entry["code"]) for entry in requests} == {
        ("gateway", "chat_completions", "ok"),
        ("tokenizer", "Tokenize", "ok"),
        ("llm", "Generate", "ok"),
        ("decoder", "Decode", "ok"),
    }
    assert {entry["trace_id"] for entry in requests} == {trace}
    assert all(entry["ms"] > 0 and entry["level"] == "info" for entry in requests)


def test_metrics_tell_of_replicas_and_what_they_run(traced: Traced) -> None:
    # The decoder is no deployment of this application.
    for name in ("gateway", "tokenizer", "llm"):
        assert traced.stack.metric("medmax_replicas", service=name) == len(traced.stack.replicas(name))
        assert traced.stack.metric("medmax_autoscaling_target_requests", service=name) > 0
        assert traced.stack.metric("medmax_build_info", service=name) == 1
    assert traced.stack.metric("medmax_autoscaling_target_requests", service="decoder") == 0
    assert traced.stack.metric("medmax_calls_ongoing", service="llm") == 0


def test_a_service_that_is_gone_marks_the_trace_as_failed(traced: Traced) -> None:
    assert traced.decoder.stop() == 0
    trace, parent = trace_parent()
    asked = body("a chest radiograph", modalities=["image"])
    assert traced.post("/v1/chat/completions", asked, traceparent=parent).status_code == 503
    collector = traced.collector
    collector.wait(
        lambda: {span.name for span in collector.trace(trace)} >= {"gateway/chat_completions", "llm/answer"}
    )
    failed = {span.name: span.facts["error.type"] for span in collector.trace(trace) if span.failed}
    assert failed == {
        "gateway/chat_completions": "unavailable",
        "gateway/answer": "unavailable",
        "decoder/Decode": "unavailable",
    }
    codes = {span.message.status.message for span in collector.trace(trace) if span.failed}
    assert codes == {"unavailable"}, "a code, not an error's words"
