"""Adapters by request: who sees which, under which names, and what the record says afterwards."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import openai
import pytest
from pydantic import SecretStr
from rest_server import Server, serving, tiny_settings
from test_gateway_keys import failure, question, with_key

from services.checkpoint import open_checkpoint
from services.config import Settings, load
from services.errors import ConfigurationError
from services.gateway.access import Access, split_model
from services.gateway.auth import Gate
from services.gateway.local import local_assistant
from services.gateway.servicer import AssistantServicer
from services.pb.medmax.v1 import assistant_pb2, assistant_pb2_grpc
from services.rpc import Server as RpcServer
from tests.support.adapters import tiny_adapter

CHAT, IMAGES = "/v1/chat/completions", "/v1/images/generations"
BODY = {"messages": [{"role": "user", "content": "is it?"}], "max_tokens": 8, "temperature": 0}
RIS, PACS = with_key("alpha"), with_key("beta")


@pytest.fixture(scope="module")
def fields(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings: `report` for everybody, `trial` for `ris` alone."""
    folder, base = tmp_path_factory.mktemp("adapters"), open_checkpoint(checkpoint)
    return {
        "api_keys": (SecretStr("ris:alpha"), SecretStr("pacs:beta")),
        "adapters": {
            name: tiny_adapter(folder / name, base, seed=seed)
            for seed, name in enumerate(("report", "trial"))
        },
        "adapter_callers": {"trial": ("ris",)},
    }


@pytest.fixture(scope="module")
def adapted(
    checkpoint: Path, fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serving(tiny_settings(checkpoint, tmp_path_factory.mktemp("var"), **fields)) as server:
        yield server


@pytest.fixture(scope="module")
def rest(adapted: Server) -> Iterator[httpx.Client]:
    with adapted.client() as client:
        yield client


def test_each_key_sees_the_models_that_it_may_use(rest: httpx.Client) -> None:
    def listed(key: dict[str, str]) -> list[str]:
        return [model["id"] for model in rest.get("/v1/models", headers=key).json()["data"]]

    assert listed(RIS) == ["medmax-phantom", "medmax-phantom:report", "medmax-phantom:trial"]
    assert listed(PACS) == ["medmax-phantom", "medmax-phantom:report"]
    for key in (RIS, PACS):
        for model in ("medmax-phantom", "medmax-phantom:report", "medmax-phantom:trial"):
            status = rest.get(f"/v1/models/{model}", headers=key).status_code
            assert status == (200 if model in listed(key) else 404)


def test_what_is_not_for_a_key_is_to_it_as_if_it_were_not_there(rest: httpx.Client) -> None:
    for path, body in ((CHAT, BODY), (CHAT, {**BODY, "stream": True}), (IMAGES, {"prompt": "x"})):
        replies = [
            rest.post(path, json={**body, "model": f"medmax-phantom:{name}"}, headers=PACS)
            for name in ("trial", "nonsense")
        ]
        assert [reply.status_code for reply in replies] == [404, 404]
        assert replies[0].json() == replies[1].json()
        error = replies[0].json()["error"]
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "trial" not in error["message"]
    same = [rest.get(f"/v1/models/medmax-phantom:{name}", headers=PACS) for name in ("trial", "nonsense")]
    assert same[0].json() == same[1].json()


@pytest.mark.parametrize(
    "model", ["other:report", "medmax-phantom:", "report", "medmax-phantom:report:x", ":"]
)
def test_a_name_that_is_none_is_not_found(rest: httpx.Client, model: str) -> None:
    error = rest.post(CHAT, json={**BODY, "model": model}, headers=RIS).json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_answers_and_records_name_the_adapter_and_a_digest_of_their_own(
    rest: httpx.Client, checkpoint: Path
) -> None:
    texts, digests = set(), set()
    for model in ("medmax-phantom", "medmax-phantom:report", "medmax-phantom:trial"):
        made = rest.post(
            CHAT, json={**BODY, "model": model, "top_logprobs": 0, "logprobs": True}, headers=RIS
        )
        reply = made.json()
        assert reply["model"] == model
        kept = rest.get(f"/v1/interactions/{reply['interaction_id']}", headers=RIS).json()
        assert (kept["model"], kept["system_fingerprint"]) == (model, reply["system_fingerprint"])
        digests.add(reply["system_fingerprint"])
        texts.add(json.dumps(reply["choices"]))
    assert len(digests) == len(texts) == 3
    assert open_checkpoint(checkpoint).digest in digests


def test_a_colon_and_a_name_are_an_adapter_of_what_is_served(rest: httpx.Client) -> None:
    short, full = (
        rest.post(CHAT, json={**BODY, "model": model}, headers=PACS).json()
        for model in (":report", "medmax-phantom:report")
    )
    assert short["model"] == full["model"] == "medmax-phantom:report"
    assert short["choices"] == full["choices"]


def test_the_openai_client_draws_and_streams_under_an_adapter(adapted: Server) -> None:
    with openai.OpenAI(base_url=f"{adapted.url}/v1", api_key="alpha", max_retries=0) as client:
        drawn = [
            client.images.generate(model=model, prompt="a film", extra_body={"seed": 5})
            for model in ("medmax-phantom", "medmax-phantom:trial")
        ]
        assert drawn[0].data[0].b64_json != drawn[1].data[0].b64_json
        assert drawn[1].model == "medmax-phantom:trial"
        chunks = list(
            client.chat.completions.create(**{**BODY, "model": "medmax-phantom:trial"}, stream=True)
        )
        assert {chunk.model for chunk in chunks} == {"medmax-phantom:trial"}


@pytest.fixture
async def stub(settings: Settings, fields: dict[str, Any]) -> AsyncIterator[Any]:
    settings = settings.model_copy(update=fields)
    async with local_assistant(settings) as assistant:
        servicer = AssistantServicer(assistant, Gate(settings))
        server = await RpcServer({"gateway": servicer}, "127.0.0.1", 0, settings).start()
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield assistant_pb2_grpc.AssistantStub(channel)
        await server.stop(1)


async def test_grpc_answers_under_an_adapter_whom_it_is_for(stub: Any) -> None:
    ris, pacs = ((("authorization", f"Bearer {key}"),) for key in ("alpha", "beta"))
    asked = question(adapter="trial")
    events = [event async for event in stub.Generate(asked, metadata=ris)]
    assert events[-1].finish.model.id == "medmax-phantom:trial"
    wanted = assistant_pb2.GetInteractionRequest(interaction_id=events[-1].finish.interaction_id)
    assert (await stub.GetInteraction(wanted, metadata=ris)).model == events[-1].finish.model
    errors = [
        await failure(stub.Generate(question(adapter=name), metadata=pacs)) for name in ("trial", "nonsense")
    ]
    assert [error.code() for error in errors] == [grpc.StatusCode.NOT_FOUND] * 2
    assert errors[0].details() == errors[1].details()
    assert dict(errors[0].trailing_metadata() or ())["medmax-field"] == "adapter"


def test_adapters_are_kept_for_callers_that_there_are() -> None:
    adapters = {"a": Path("a")}
    keys = (SecretStr("ris:alpha"),)
    for changes, unknown in (({"api_keys": keys}, "rsi"), ({}, "ris")):
        with pytest.raises(ConfigurationError, match=unknown) as caught:
            Access(Settings(adapters=adapters, adapter_callers={"a": (unknown,)}, **changes))
        assert caught.value.field == "MEDMAX_ADAPTER_CALLERS"
    local = Access(Settings(adapters=adapters, adapter_callers={"a": ("local",)}))
    assert local.models("local") == ["medmax-phantom", "medmax-phantom:a"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ADAPTERS": "a"}, "NAME=VALUE"),
        ({"ADAPTERS": "a=x,a=y"}, "given twice"),
        ({"ADAPTERS": "a b=x"}, "a name has"),
        ({"ADAPTERS": f"{'a' * 33}=x"}, "a name has"),
        ({"ADAPTERS": "a:b=x"}, "a name has"),
        ({"ADAPTERS": ",".join(f"a{i}=x" for i in range(65))}, "64"),
        ({"ADAPTERS": "a=x", "ADAPTER_CALLERS": "b=ris"}, "no adapter"),
        ({"ADAPTERS": "a=x", "MODEL_ID": "m" * 63}, "64 characters"),
    ],
)
def test_wrong_settings_are_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"MEDMAX_{name}", value)
    with pytest.raises(ConfigurationError, match=words) as caught:
        load()
    assert str(caught.value.field).startswith("MEDMAX_ADAPTER")


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMAX_ADAPTERS", "report=/models/report, trial = trial")
    monkeypatch.setenv("MEDMAX_ADAPTER_CALLERS", "trial=ris|pacs")
    settings = load()
    assert settings.adapters == {"report": Path("/models/report"), "trial": Path("trial")}
    assert settings.adapter_callers == {"trial": ("ris", "pacs")}


def test_models_are_split_at_the_colon() -> None:
    assert split_model("a/b:c") == ("a/b", "c")
    assert split_model(":c") == ("", "c")
    assert split_model("a:") == ("a:", "")
    assert split_model("a") == ("a", "")
