"""Adapters behind the real stack: chosen by request over REST and gRPC, kept for one of two keys."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import openai
import pytest

from services.checkpoint import open_checkpoint
from services.pb.medmax.v1 import assistant_pb2, assistant_pb2_grpc, llm_pb2, llm_pb2_grpc
from tests.support.adapters import tiny_adapter
from tests.support.stack import ROOT, Served, running
from tests.unit.cli.medmax import medmax

MODELS = ["medmax-phantom", "medmax-phantom:report", "medmax-phantom:trial"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[str, Path]:
    folder, base = tmp_path_factory.mktemp("adapters"), open_checkpoint(model)
    return {n: tiny_adapter(folder / n, base, seed=seed) for seed, n in enumerate(("report", "trial"))}


@pytest.fixture(scope="module")
def adapted(
    tmp_path_factory: pytest.TempPathFactory, model: Path, folders: dict[str, Path]
) -> Iterator[Served]:
    given = [word for name, folder in folders.items() for word in ("--adapter", f"{name}={folder}")]
    yield from running(
        tmp_path_factory.mktemp("stack"), "--http-port", "0", "--grpc-port", "0", "--checkpoint", str(model),
        *given, MEDMAX_API_KEYS="ris:alpha,pacs:beta", MEDMAX_ADAPTER_CALLERS="trial=ris",
    )  # fmt: skip


def client(stack: Served, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.http}/v1", api_key=key, max_retries=0)


def test_rest_lists_and_answers_what_a_key_may_use(adapted: Served) -> None:
    assert adapted.facts["adapters"] == ["report", "trial"]
    ris, pacs = client(adapted, "alpha"), client(adapted, "beta")
    assert [model.id for model in ris.models.list()] == MODELS
    assert [model.id for model in pacs.models.list()] == MODELS[:2]
    fingerprints = set()
    for model in MODELS:
        answer = ris.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=4
        )
        assert answer.model == model
        fingerprints.add(answer.system_fingerprint)
        assert ris.images.generate(model=model, prompt="a chest radiograph").data[0].b64_json
    assert len(fingerprints) == 3
    messages = []
    for name in ("trial", "nonsense"):
        with pytest.raises(openai.NotFoundError) as caught:
            pacs.images.generate(model=f"medmax-phantom:{name}", prompt="x")
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_grpc_keeps_an_adapter_for_its_key_also_at_the_language_model_itself(adapted: Served) -> None:
    message = assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=[assistant_pb2.Part(text="hi")])
    with grpc.insecure_channel(adapted.grpc) as channel:
        assistant, llm = assistant_pb2_grpc.AssistantStub(channel), llm_pb2_grpc.LanguageModelStub(channel)

        def models(key: str, adapter: str) -> list[str]:
            metadata = (("authorization", f"Bearer {key}"),)
            asked = assistant_pb2.GenerateRequest(messages=[message], max_new_tokens=2, adapter=adapter)
            direct = llm_pb2.LanguageModelGenerateRequest(prompt_ids=[0], max_new_tokens=2, adapter=adapter)
            streams = (
                assistant.Generate(asked, metadata=metadata, timeout=60),
                llm.Generate(direct, metadata=metadata, timeout=60),
            )
            found = []
            for stream in streams:
                try:
                    found.append([*stream][-1].finish.model.id)
                except grpc.RpcError as error:
                    field = dict(error.trailing_metadata() or ())["medmax-field"]
                    found.append(f"{field}: {error.code().name}")
            return found

        assert models("alpha", "trial") == ["medmax-phantom:trial"] * 2
        assert models("beta", "report") == ["medmax-phantom:report"] * 2
        assert models("beta", "trial") == models("beta", "nonsense") == ["adapter: NOT_FOUND"] * 2


def test_the_command_line_asks_under_an_adapter(
    adapted: Served, png: bytes, tmp_path: Path, model: Path, folders: dict[str, Path]
) -> None:
    (tmp_path / "film.png").write_bytes(png)
    ask = ("ask", "film.png", "Is it?", "--server", adapted.http, "--max-tokens", "2", "--json", "--adapter")
    asked = medmax(tmp_path, *ask, "report", MEDMAX_API_KEY="beta")
    assert (asked.status, asked.document["model"]) == (0, "medmax-phantom:report"), asked.err
    refused = medmax(tmp_path, *ask, "trial", MEDMAX_API_KEY="beta")
    assert (refused.status, refused.document["error"]["field"]) == (1, "--adapter")
    here = medmax(
        tmp_path, *ask[:3], "--local", "--json", "--adapter", "mine", MEDMAX_STORE="0",
        MEDMAX_CHECKPOINT=str(model), MEDMAX_ADAPTERS=f"mine={folders['report']}",
    )  # fmt: skip
    assert (here.status, here.document["model"]) == (0, "medmax-phantom:mine"), here.err


def test_an_adapter_of_another_checkpoint_is_told_before_anything_starts(
    model: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    base = open_checkpoint(model)
    folder = tiny_adapter(tmp_path / "a", base)
    (folder / "provenance.json").write_text(json.dumps({"base": {"digest": "0" * 64}}))
    for entry, status, words in (
        (f"mine={folder}", 1, "another checkpoint"),
        (f"mine={tmp_path / 'none'}", 1, "is missing"),
        ("mine", 1, "NAME=VALUE"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "services.cli", "serve", "--http-port", "0", "--grpc-port", "0",
             "--adapter", entry],
            cwd=ROOT, env={**os.environ, "MEDMAX_CHECKPOINT": str(model)}, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == status
        assert words in done.stderr
        assert "MEDMAX_ADAPTERS" in done.stderr
        assert "Traceback" not in done.stderr
