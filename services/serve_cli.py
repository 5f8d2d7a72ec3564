"""Serve the assistant over REST and gRPC, or one service alone over gRPC."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from services import config, logs, tracing, tracing_settings
from services.commands.output import Json, err, say, stdout_reserved
from services.config import Settings

app = typer.Typer(invoke_without_command=True, add_completion=False, pretty_exceptions_enable=False)

Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Checkpoint directory. Default: MEDMAX_CHECKPOINT, else the shipped model."
    ),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="NAME=FOLDER",
        help="LoRA adapter to serve beside the checkpoint; may be repeated. Default: MEDMAX_ADAPTERS.",
        show_default=False,
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 = any free one.")]
Host = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Default: MEDMAX_HOST, else 127.0.0.1.")]
SERVICERS = {
    "tokenizer": ("services.tokenizer.servicer", "ImageTokenizerServicer"),
    "llm": ("services.llm.servicer", "LanguageModelServicer"),
    "decoder": ("services.decoder.servicer", "ImageDecoderServicer"),
}

INFERENCE = frozenset({"tokenizer", "decoder"})
"""Those that speak the Open Inference Protocol as well."""


@app.callback()
def serve(
    ctx: typer.Context,
    http_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Default: MEDMAX_HTTP_PORT, else 8000; 0 = any free one."),
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Default: MEDMAX_GRPC_PORT, else 9000; 0 = any free one."),
    ] = None,
    host: Host = None,
    checkpoint: Checkpoint = None,
    adapters: Adapters = None,
    as_json: Json = False,
) -> None:
    """Serve the assistant over REST and gRPC until Ctrl-C; with a name after it, one service alone over gRPC."""
    if ctx.invoked_subcommand is not None:
        return
    settings = _settings(
        http_port=http_port, grpc_port=grpc_port, host=host, checkpoint=checkpoint, adapters=adapters
    )
    from services.deployments.stack import Stack

    with _Output(as_json) as output, Stack(settings) as stack:
        settings = stack.settings
        with err.status("starting") as status:
            begun = time.monotonic()
            for part in stack.start():
                say(f"{part} is up after {time.monotonic() - begun:.1f} s")
                status.update(f"starting ({part} is up)")
        if not stack.stopping:
            output.announce(
                {
                    "http": stack.http_url,
                    "grpc": stack.grpc_address,
                    "docs": f"{stack.http_url}/docs",
                    "model": settings.model_id,
                    "adapters": list(settings.adapters),
                    "pid": os.getpid(),
                    "logs": str(stack.logs),
                }
            )
            stack.wait()
        with err.status("stopping"):
            stack.stop()
    say("stopped")


@app.command()
def tokenizer(
    port: Port = 9001, host: Host = None, checkpoint: Checkpoint = None, as_json: Json = False
) -> None:
    """Serve the image tokenizer alone over gRPC."""
    _serve_alone("tokenizer", port, _settings(host=host, checkpoint=checkpoint), as_json)


@app.command()
def llm(
    port: Port = 9002,
    host: Host = None,
    checkpoint: Checkpoint = None,
    adapters: Adapters = None,
    as_json: Json = False,
) -> None:
    """Serve the language model alone over gRPC."""
    _serve_alone("llm", port, _settings(host=host, checkpoint=checkpoint, adapters=adapters), as_json)


@app.command()
def decoder(
    port: Port = 9003, host: Host = None, checkpoint: Checkpoint = None, as_json: Json = False
) -> None:
    """Serve the image decoder alone over gRPC."""
    _serve_alone("decoder", port, _settings(host=host, checkpoint=checkpoint), as_json)


def _settings(**overrides: Any) -> Settings:
    # Typer gives an empty list for an option that may be repeated and is not there.
    return config.load(**{name: value for name, value in overrides.items() if value not in (None, [])})


def _serve_alone(name: str, port: int, settings: Settings, as_json: bool) -> None:
    from services import metrics
    from services.gateway.auth import Gate
    from services.rpc import serve as serve_plain

    tracing_settings.check()  # before the weights are read

    with _Output(as_json) as output:
        with err.status(f"loading the {name}"):
            module, cls = SERVICERS[name]
            servicer = getattr(importlib.import_module(module), cls).from_settings(settings)
            servicers = {name: servicer}
            if name in INFERENCE:
                from services.inference.servicer import InferenceServicer

                servicers["inference"] = InferenceServicer.local(settings, servicer)
        logs.configure(name)
        tracing.configure(name)
        metrics.publish_replica(name, servicer.model.id, servicer.model.digest)
        facts = {"service": name, "pid": os.getpid()}
        asyncio.run(
            serve_plain(
                servicers,
                settings.host,
                port,
                settings,
                authenticate=Gate(settings).authenticate_metadata,
                on_ready=lambda address: output.announce({"grpc": address, **facts}),
            )
        )
        tracing.close()
    say("stopped")


class _Output:
    """Stdout for people, or for one JSON document that comes as soon as the addresses are known."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._reserved = stdout_reserved(as_json)
        self._stdout = os.dup(1)

    def __enter__(self) -> _Output:
        self._reserved.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._reserved.__exit__(*raised)
        os.close(self._stdout)

    def announce(self, facts: dict[str, Any]) -> None:
        """Tells where the services answer."""
        if self._as_json:
            os.write(self._stdout, (json.dumps(facts) + "\n").encode())
            return
        for key, value in facts.items():
            print(f"{key:>8}  {value}")
        print("Ctrl-C stops.")
        sys.stdout.flush()
