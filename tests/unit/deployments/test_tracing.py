"""Spans of a request in one process and over gRPC, and what happens when tracing is off, wrong or unheard."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from services import logs, metrics, tracing, tracing_settings
from services.checkpoint import open_checkpoint
from services.config import Settings
from services.errors import ConfigurationError, InvalidImage, Unavailable
from services.gateway.assistant import Assistant
from services.gateway.local import local_assistant
from services.gateway.rest import create_app
from services.pb.medmax.v1 import assistant_pb2, common_pb2
from services.rpc import RemoteDecoder, RemoteLanguageModel, RemoteTokenizer, Server
from tests.support.collector import Collector, collecting
from tests.support.pictures import dicom, encode, noise
from tests.support.tiny import tiny_checkpoint

ENDPOINT, SAMPLER, RATIO = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    tracing.close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Spans come when `tracing.close` is called."""
    with collecting() as collector:
        monkeypatch.setenv(ENDPOINT, collector.endpoint)
        tracing.configure("test")
        yield collector


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model"), max_position_embeddings=512)


def question(picture: bytes, mode: int = common_pb2.OUTPUT_MODE_IMAGE) -> assistant_pb2.GenerateRequest:
    image = assistant_pb2.Part(image=assistant_pb2.ImagePart(data=picture))
    message = assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=[image])
    return assistant_pb2.GenerateRequest(
        messages=[message], mode=mode, context=common_pb2.RequestContext(request_id="r-1")
    )


def trees(collector: Collector) -> list[str]:
    """Of every trace, once all spans are sent."""
    tracing.close()
    return [collector.tree(id) for id in dict.fromkeys(span.trace for span in collector.spans)]


OFF = """
import sys
from services import logs, metrics, tracing
from services.gateway.assistant import Assistant
tracing.configure("x")
with metrics.track("llm", "Generate") as span, tracing.span("a") as below:
    assert not span and not below and tracing.traceparent() == ""
    assert tracing.parent_of([("traceparent", "00-" + "1" * 32 + "-" + "2" * 16 + "-01")]) == ""
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


def test_off_nothing_of_opentelemetry_is_imported() -> None:
    subprocess.run([sys.executable, "-c", OFF], check=True)


async def test_off_a_stream_gets_no_layer_of_its_own() -> None:
    async def events() -> AsyncIterator[int]:
        yield 1

    source = events()
    assert tracing.within(tracing.begin("x"), source) is source
    await source.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://h:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://h/v1/traces"}, True),
        ({ENDPOINT: "http://h:4318", "OTEL_SDK_DISABLED": "True"}, False),
        ({ENDPOINT: "http://h:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ENDPOINT: "http://h:4318", SAMPLER: "parentbased_traceidratio", RATIO: "0.25"}, True),
    ],
)
def test_an_endpoint_turns_it_on(
    variables: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing_settings.check() is wanted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (ENDPOINT, "collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        (SAMPLER, "sometimes"),
        (RATIO, "1.5"),
        (RATIO, "half"),
        (RATIO, "nan"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://h:4318")
    if name == RATIO:
        monkeypatch.setenv(SAMPLER, "traceidratio")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        tracing.configure("x")
    assert caught.value.field == name


def test_a_missing_extra_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://h:4318")
    monkeypatch.setattr(tracing_settings, "EXPORTER", "opentelemetry.exporter.absent.proto.http")
    with pytest.raises(ConfigurationError, match=r"medmax-serve\[tracing\]"):
        tracing_settings.check()


async def test_in_one_process_an_answer_is_one_trace(
    collector: Collector, checkpoint: Path, tmp_path: Path
) -> None:
    async with local_assistant(Settings(checkpoint=checkpoint, data_dir=tmp_path, threads=1)) as assistant:
        for _ in range(2):
            async for _event in assistant.generate(question(encode(noise())), "local"):
                assert not logs.TRACE_ID.get(), "the reader keeps what was at work before"
    expected = "\n".join(
        [
            "test gateway/answer internal",
            "  test tokenizer/Tokenize client",
            "  test llm/Generate client",
            "    test llm/answer internal",
            "  test decoder/Decode client",
            "  test interactions/save internal",
        ]
    )
    assert trees(collector) == [expected, expected]
    cached = [span.facts["medmax.cached"] for span in collector.spans if span.name == "tokenizer/Tokenize"]
    assert cached == [False, True]
    assert not [span.name for span in collector.spans if "error.type" in span.facts]


async def test_over_grpc_each_service_goes_on_with_the_trace_and_counts(
    collector: Collector, checkpoint: Path
) -> None:
    settings = Settings(checkpoint=checkpoint, store=False, threads=1)
    local = local_assistant(settings)
    backends = local.backends
    servicers = {"tokenizer": backends.tokenizer, "llm": backends.llm, "decoder": backends.decoder}
    server = await Server(servicers, "127.0.0.1", 0, settings).start()
    remotes = [
        each(server.address, settings) for each in (RemoteTokenizer, RemoteLanguageModel, RemoteDecoder)
    ]
    remote = Assistant.from_checkpoint(settings, open_checkpoint(checkpoint), *remotes, None)

    def count(service: str, method: str, code: str) -> float:
        labels = {"service": service, "method": method, "code": code}
        return metrics.REGISTRY.get_sample_value("medmax_requests_total", labels) or 0.0

    cases = [("tokenizer", "Tokenize", "ok"), ("llm", "Generate", "ok"), ("decoder", "Decode", "ok")]
    cases.append(("tokenizer", "Tokenize", "invalid_image"))
    before = [count(*case) for case in cases]
    try:
        async for _ in remote.generate(question(encode(noise())), "local"):
            pass
        with pytest.raises(InvalidImage):
            [event async for event in remote.generate(question(b"no picture"), "local")]
        await remote.check_health()
    finally:
        await remote.close()
        await server.stop(0)
    assert [count(*case) - then for case, then in zip(cases, before, strict=True)] == [1, 1, 1, 1]
    good, bad = trees(collector)
    assert good == "\n".join(
        [
            "test gateway/answer internal",
            "  test tokenizer/Tokenize client",
            "    test tokenizer/Tokenize server",
            "  test llm/Generate client",
            "    test llm/Generate server",
            "      test llm/answer internal",
            "  test decoder/Decode client",
            "    test decoder/Decode server",
        ]
    )
    assert len(bad.splitlines()) == 3
    failed = [(span.name, span.kind) for span in collector.spans if span.failed]
    assert sorted(failed) == [("gateway/answer", "internal"), ("tokenizer/Tokenize", "client")]
    served = [span for span in collector.spans if span.kind == "server"]
    assert {span.facts["medmax.request_id"] for span in served} == {"r-1"}


async def test_a_stream_read_by_several_tasks_leaves_nothing_at_work(collector: Collector) -> None:
    seen = []

    async def events() -> AsyncIterator[int]:
        for number in range(4):
            seen.append(tracing.traceparent())
            yield number

    span = tracing.begin("stream")
    stream = tracing.within(span, events())

    async def take() -> int:
        number = await anext(stream)
        assert tracing.traceparent() == ""
        return number

    assert [await asyncio.create_task(take()) for _ in range(3)] == [0, 1, 2]
    await asyncio.create_task(stream.aclose())  # type: ignore[attr-defined]
    assert seen == [span.traceparent] * 3
    assert (tracing.traceparent(), logs.TRACE_ID.get()) == ("", "")
    span.end()


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", True),
        (f"cc-{TRACE}-00f067aa0ba902b7-01-what-comes-later", True),
        ("", False),
        ("Erika Mustermann", False),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", False),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", False),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
    ],
)
def test_a_parent_without_the_right_form_counts_as_none(given: str, kept: bool, collector: Collector) -> None:
    with metrics.track("gateway", "m", given) as span:
        assert (span.traceparent.split("-")[1] == TRACE) is kept
        assert tracing.traceparent() == span.traceparent
    trees(collector)
    assert len(collector.spans) == 1


def test_a_share_of_the_traces_that_begin_here_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv(ENDPOINT, collector.endpoint)
        monkeypatch.setenv(SAMPLER, "parentbased_traceidratio")
        monkeypatch.setenv(RATIO, "0")
        tracing.configure("test")
        with metrics.track("gateway", "own") as span:
            assert not span, "nothing is recorded"
            assert tracing.traceparent().endswith("-00"), "the next hop learns of it"
        with metrics.track("gateway", "asked", f"00-{TRACE}-00f067aa0ba902b7-01"):
            pass
        trees(collector)
        assert [span.name for span in collector.spans] == ["gateway/asked"]


def test_an_error_leaves_its_code_and_not_its_words(collector: Collector) -> None:
    for error in (KeyError("Erika Mustermann"), Unavailable("Erika Mustermann"), InvalidImage("Erika")):
        with pytest.raises(type(error)), metrics.track("llm", "m"), tracing.span("below"):
            raise error
    trees(collector)
    found = [(span.kind, span.facts["error.type"], span.failed) for span in collector.spans]
    assert sorted(found) == [
        ("internal", "internal_error", True),
        ("internal", "invalid_image", True),
        ("internal", "unavailable", True),
        ("server", "internal_error", True),
        ("server", "invalid_image", False),
        ("server", "unavailable", True),
    ]
    assert b"Erika" not in b"".join(collector.raw)


def test_a_request_id_that_is_none_stays_out_of_spans(collector: Collector) -> None:
    for id, kept in (("r-7", {"medmax.request_id": "r-7"}), ("Erika Mustermann", {})):
        logs.enter(id)
        with tracing.span(id[:1]) as span:
            assert span
        tracing.close()
        assert collector.spans[-1].facts == kept
        tracing.configure("test")
    logs.enter("")


def test_a_collector_that_fails_costs_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as gone:
        monkeypatch.setenv(ENDPOINT, gone.endpoint)
        tracing.configure("test")
    # Nothing listens there any more.
    with metrics.track("gateway", "m"):
        pass
    tracing.close()


PLANTED = ("Zebulonius", "Quartermaine", "1953-02-28", "MRN4471193")
WORDS = " ".join(PLANTED)
TREE = """\
test gateway/chat_completions server
  test gateway/answer internal
    test tokenizer/Tokenize client
      test tokenizer/Tokenize server
    test llm/Generate client
      test llm/Generate server
        test llm/answer internal
    test decoder/Decode client
      test decoder/Decode server
    test interactions/save internal"""


async def test_over_rest_a_trace_goes_on_and_nothing_of_a_patient_comes_out(
    collector: Collector, checkpoint: Path, tmp_path: Path
) -> None:
    lines = io.StringIO()
    logs.configure("test", stream=lines)
    settings = Settings(checkpoint=checkpoint, data_dir=tmp_path, threads=1)
    trace = f"00-{TRACE}-00f067aa0ba902b7-01"
    shown = dicom(noise(64, 64, 1), PatientName=WORDS, PatientID=PLANTED[3], StudyDescription=WORDS)
    url = "data:application/dicom;base64," + base64.b64encode(shown).decode()

    def body(text: str, url: str | None = None, **fields: object) -> dict[str, object]:
        pictures = [{"type": "image_url", "image_url": {"url": url}}] if url else []
        content = [*pictures, {"type": "text", "text": text}]
        return {"messages": [{"role": "user", "content": content}], **fields}

    wrong = {
        "x-request-id": WORDS,
        "traceparent": WORDS,
        "tracestate": f"a={PLANTED[0]}",
        "baggage": f"patient={PLANTED[0]}",
        "user-agent": WORDS,
    }
    async with local_assistant(settings) as local:
        backends = local.backends
        servicers = {"tokenizer": backends.tokenizer, "llm": backends.llm, "decoder": backends.decoder}
        server = await Server(servicers, "127.0.0.1", 0, settings).start()
        remotes = [
            each(server.address, settings) for each in (RemoteTokenizer, RemoteLanguageModel, RemoteDecoder)
        ]
        remote = Assistant.from_checkpoint(settings, open_checkpoint(checkpoint), *remotes, backends.store)
        transport = httpx.ASGITransport(create_app(remote, settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=60) as client:
            reply = await client.post(
                "/v1/chat/completions",
                json=body(WORDS, url, modalities=["image"], user=WORDS),
                headers={"traceparent": trace, "x-request-id": "r-good"},
            )
            assert reply.status_code == 200, reply.text
            comment = {
                "interaction_id": reply.json()["interaction_id"],
                "comment": WORDS,
                "corrected_text": WORDS,
            }
            assert (await client.post("/v1/feedback", json=comment, headers=wrong)).status_code == 200
            bad = "data:image/png;base64," + base64.b64encode(WORDS.encode()).decode()
            for asked in (
                body(WORDS, model=PLANTED[0]),
                body(WORDS, modalities=[PLANTED[0]]),
                body(WORDS, f"https://{PLANTED[0]}.example/{PLANTED[1]}.png"),
                body(WORDS, bad),
                {PLANTED[0]: WORDS, **body(WORDS)},
            ):
                reply = await client.post("/v1/chat/completions", json=asked, headers=wrong)
                assert reply.status_code in {400, 404}, reply.text
            for path in (f"/v1/interactions/{PLANTED[0]}?of={PLANTED[1]}", f"/{PLANTED[0]}"):
                assert (await client.get(path, headers=wrong)).status_code in {400, 404}
            page = (await client.get("/metrics")).text
        for each in remotes:
            await each.close()
        await server.stop(0)
    tracing.close()
    assert collector.tree(TRACE) == TREE
    assert {span.facts["medmax.request_id"] for span in collector.trace(TRACE)} == {"r-good"}
    entries = [json.loads(line) for line in lines.getvalue().splitlines()]
    requests = [entry for entry in entries if entry.get("request_id") == "r-good"]
    assert {entry["method"] for entry in requests} == {"chat_completions", "Tokenize", "Generate", "Decode"}
    assert {entry["trace_id"] for entry in requests} == {TRACE}
    everything = {
        "spans": b"".join(collector.raw).decode(errors="replace"),
        "logs": lines.getvalue(),
        "metrics": page,
    }
    assert not {(word, place) for word in PLANTED for place, text in everything.items() if word in text}
    assert all(everything.values())
