"""What the gateway adds to the first token: REST and gRPC against the engine in this process, one caller.

    python -m loadtests.gateway_overhead [--checkpoint DIR] [--rounds N] [--server URL --grpc ADDRESS] [--json]

Starts the whole stack on free ports unless a server is named. Rounds alternate between the ways, so that a busy
machine slows all of them alike. Times are milliseconds from the call to the first text of a greedy answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
from rich.console import Console
from rich.progress import track
from rich.table import Table

from services import config
from services.checkpoint import open_checkpoint
from services.config import Settings
from services.gateway.prompt import build
from services.llm.servicer import LanguageModelServicer
from services.pb.medmax.v1 import assistant_pb2, assistant_pb2_grpc, common_pb2, llm_pb2

QUESTION = "Describe what a normal chest radiograph shows."
MAX_TOKENS = 8
WARM_UP = 10
TARGET_MS = 15.0
err = Console(stderr=True)


def message() -> assistant_pb2.Message:
    return assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=[assistant_pb2.Part(text=QUESTION)])


def engine_call(settings: Settings) -> tuple[LanguageModelServicer, Callable[[], Awaitable[float]]]:
    """The engine in this process."""
    servicer = LanguageModelServicer.from_settings(settings)
    prompt = build([message()], open_checkpoint(settings.checkpoint).vocabulary)
    request = llm_pb2.LanguageModelGenerateRequest(
        prompt_ids=prompt.ids([], open_checkpoint(settings.checkpoint).vocabulary),
        max_new_tokens=MAX_TOKENS,
        sampling=common_pb2.Sampling(temperature=0),
    )

    async def call() -> float:
        return await first(servicer.Generate(request), lambda event: bool(event.text.text))

    return servicer, call


def grpc_call(channel: grpc.aio.Channel) -> Callable[[], Awaitable[float]]:
    """The assistant over gRPC."""
    stub = assistant_pb2_grpc.AssistantStub(channel)
    request = assistant_pb2.GenerateRequest(
        messages=[message()], max_new_tokens=MAX_TOKENS, sampling=common_pb2.Sampling(temperature=0)
    )

    async def events() -> AsyncIterator[Any]:
        async for event in stub.Generate(request):
            yield event

    async def call() -> float:
        return await first(events(), lambda event: bool(event.text.text))

    return call


def rest_call(client: httpx.AsyncClient) -> Callable[[], Awaitable[float]]:
    """The assistant over REST, streamed."""
    body = {
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "stream": True,
    }

    async def events() -> AsyncIterator[Any]:
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line[6:])

    def has_text(chunk: Any) -> bool:
        return any(choice["delta"].get("content") for choice in chunk["choices"])

    async def call() -> float:
        return await first(events(), has_text)

    return call


async def first(events: AsyncIterator[Any], wanted: Callable[[Any], bool]) -> float:
    """Milliseconds to the first wanted event; the rest is read as well, so that calls do not overlap."""
    start, found = time.perf_counter(), None
    async with aclosing(events) as source:  # type: ignore[type-var]
        async for event in source:
            if found is None and wanted(event):
                found = (time.perf_counter() - start) * 1000
    if found is None:
        raise RuntimeError("the answer held no text; measure with a trained model")
    return found


@contextlib.contextmanager
def server(arguments: argparse.Namespace, settings: Settings) -> Iterator[tuple[str, str]]:
    """HTTP and gRPC addresses of the named server, or of one that runs as long as the block."""
    if arguments.server:
        yield arguments.server, arguments.grpc
        return
    ports = ["--http-port", "0", "--grpc-port", "0", "--checkpoint", str(settings.checkpoint)]
    process = subprocess.Popen(
        [sys.executable, "-m", "services.cli", "serve", *ports, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MEDMAX_STORE": "true"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the stack did not start")
        facts = json.loads(line)
        yield facts["http"], facts["grpc"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def measure(http: str, address: str, settings: Settings, rounds: int) -> dict[str, list[float]]:
    """Times of every way."""
    servicer, engine = engine_call(settings)
    async with (
        httpx.AsyncClient(base_url=http, trust_env=False, timeout=60) as client,
        grpc.aio.insecure_channel(address) as channel,
    ):
        ways = {"engine": engine, "rest": rest_call(client), "grpc": grpc_call(channel)}
        for call in ways.values():
            for _ in range(WARM_UP):
                await call()
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in track(range(rounds), "measuring", console=err):
            for name, call in ways.items():
                times[name].append(await call())
    await servicer.close()
    return times


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """p50 and p90 of every way, and what REST and gRPC add to the engine's p50."""
    ways = {
        name: {"p50_ms": statistics.median(values), "p90_ms": statistics.quantiles(values, n=10)[-1]}
        for name, values in times.items()
    }
    base = ways["engine"]["p50_ms"]
    added = {name: ways[name]["p50_ms"] - base for name in ("rest", "grpc")}
    return {
        "rounds": len(times["engine"]),
        "first_token": ways,
        "added_p50_ms": added,
        "target_ms": TARGET_MS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="default: MEDMAX_CHECKPOINT, else the shipped model")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--server", help="HTTP address of a running stack with the same checkpoint")
    parser.add_argument("--grpc", default="127.0.0.1:9000", help="its gRPC address")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    settings = config.load(**({"checkpoint": arguments.checkpoint} if arguments.checkpoint else {}))
    with server(arguments, settings) as (http, address):
        result = summary(asyncio.run(measure(http, address, settings, arguments.rounds)))
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    table = Table(
        "first token", "p50 ms", "p90 ms", "added p50 ms", title=f"{result['rounds']} rounds, one caller"
    )
    for name, values in result["first_token"].items():
        added = result["added_p50_ms"].get(name)
        table.add_row(
            name,
            f"{values['p50_ms']:.1f}",
            f"{values['p90_ms']:.1f}",
            "" if added is None else f"{added:+.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
