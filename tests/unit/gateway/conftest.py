from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from rest_server import Server, serving, tiny_settings

from services.checkpoint import open_checkpoint
from services.config import Settings
from services.gateway.assistant import Assistant
from services.gateway.local import local_assistant
from services.llm.engine import Engine
from services.llm.events import FinishReason
from services.llm.request import GenerationRequest, SamplingRequest
from tests.support.tiny import tiny_checkpoint

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("gateway"), max_position_embeddings=512)


@pytest.fixture(scope="session")
def long_prompt(checkpoint: Path) -> str:
    """A text on which this model, greedily, goes on until the context is full."""
    engine = Engine(open_checkpoint(checkpoint), Settings(threads=1))
    vocabulary = open_checkpoint(checkpoint).vocabulary
    try:
        for text in "abcdefghijklmnopqrstuvwxyz":
            ids = [vocabulary.bos, *vocabulary.encode(text), vocabulary.end_of_turn]
            request = GenerationRequest(ids, sampling=SamplingRequest(temperature=0, repetition_penalty=1))
            if engine.generate_batch([request])[0].finish.reason is FinishReason.LENGTH:
                return text
    finally:
        engine.close()
    raise AssertionError("every greedy answer of the tiny model ends early; choose another seed for it")


@pytest.fixture
def long_body(long_prompt: str) -> dict[str, Any]:
    """A chat request whose answer takes about half a second."""
    messages = [{"role": "user", "content": long_prompt}]
    return {"messages": messages, "temperature": 0, "repetition_penalty": 1}


@pytest.fixture
def settings(checkpoint: Path, tmp_path: Path) -> Settings:
    return tiny_settings(checkpoint, tmp_path / "var")


@pytest.fixture
async def assistant(settings: Settings) -> AsyncIterator[Assistant]:
    async with local_assistant(settings) as assistant:
        services = assistant.backends
        yield assistant
        assistant.backends = services  # tests put others in their place


@pytest.fixture(scope="session")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = tiny_settings(
        checkpoint, tmp_path_factory.mktemp("var"), max_request_bytes=400_000, max_image_bytes=200_000
    )
    with serving(settings) as server:
        yield server


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client
