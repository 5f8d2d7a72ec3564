"""`medmax ask`: a question about a picture."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.commands.options import Adapter, Local, Server, not_blank, parse_window
from services.commands.output import Json, document, err, out, printable, say, stdout_reserved

if TYPE_CHECKING:
    from services.commands.answers import Answer
    from services.pb.medmax.v1 import assistant_pb2

# Fields of the request, in the contract's and in REST's words.
_NAMES = {
    "adapter": "--adapter",
    "model": "--adapter",
    "messages[0].parts[0].image.window": "--window",
    "messages[0].content[0].image_url.window": "--window",
    "messages[0].parts[0]": "PICTURE",
    "messages[0].content[0]": "PICTURE",
    "messages[0].parts[1]": "QUESTION",
    "messages[0].content[1]": "QUESTION",
    "max_new_tokens": "--max-tokens",
    "max_completion_tokens": "--max-tokens",
}


def ask(
    picture: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="Picture file or DICOM.")
    ],
    question: Annotated[str, typer.Argument(help="What to ask about it.", callback=not_blank)],
    server: Server = None,
    local: Local = False,
    adapter: Adapter = "",
    window: Annotated[
        str | None, typer.Option(metavar="C,W", help="DICOM window: centre and width, after rescale.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 = always the likeliest.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**64 - 1, help="Repeat an answer.")] = None,
    as_json: Json = False,
) -> None:
    """Ask a question about a picture."""
    from services.commands.answers import footer, picture_part
    from services.pb.medmax.v1 import assistant_pb2, common_pb2

    request = assistant_pb2.GenerateRequest(mode=common_pb2.OUTPUT_MODE_TEXT, adapter=adapter)
    request.messages.add(
        role=assistant_pb2.ROLE_USER,
        parts=[picture_part(picture, parse_window(window)), assistant_pb2.Part(text=question)],
    )
    if max_tokens is not None:
        request.max_new_tokens = max_tokens
    if temperature is not None:
        request.sampling.temperature = temperature
    if seed is not None:
        request.sampling.seed = seed
    with stdout_reserved(as_json), err.status("thinking"):
        answer, where = asyncio.run(_ask(request, server, local))
    if as_json:
        document({"answer": answer.text, **answer.to_json()})
    else:
        out.print(printable(answer.text), markup=False)
        say(footer(answer, where))


async def _ask(request: assistant_pb2.GenerateRequest, server: str | None, local: bool) -> tuple[Answer, str]:
    from services.commands.answers import gather
    from services.commands.assistants import connect

    async with connect(server, local) as assistant:
        return await gather(assistant, request, names=_NAMES), assistant.where
