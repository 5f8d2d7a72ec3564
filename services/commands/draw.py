"""`medmax draw`: a picture from a description."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.commands.files import replace_file
from services.commands.options import Adapter, Local, Server, not_blank
from services.commands.output import Json, document, err, out, say, stdout_reserved
from services.errors import Unavailable

if TYPE_CHECKING:
    from services.commands.answers import Answer
    from services.pb.medmax.v1 import assistant_pb2

# Fields of the request, in the contract's and in REST's words.
_NAMES = {
    "messages[0]": "DESCRIPTION",
    "prompt": "DESCRIPTION",
    "image_size": "--size",
    "size": "--size",
    "adapter": "--adapter",
    "model": "--adapter",
}
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def draw(
    description: Annotated[str, typer.Argument(help="What the picture should show.", callback=not_blank)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", dir_okay=False, help=".png, .jpg or .webp")
    ],
    server: Server = None,
    local: Local = False,
    adapter: Adapter = "",
    seed: Annotated[int | None, typer.Option(min=0, max=2**64 - 1, help="Repeat a picture.")] = None,
    size: Annotated[
        int | None, typer.Option(min=16, max=2048, help="Edge in pixels; default: the model's.")
    ] = None,
    visible_mark: Annotated[
        bool, typer.Option("--visible-mark", help="Write SYNTHETIC onto the picture as well.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Draw a picture. Its metadata say that it is synthetic."""
    from services.commands.answers import footer
    from services.pb.medmax.v1 import assistant_pb2, common_pb2

    kind = _FORMATS.get(output.suffix.lower())
    if kind is None:
        raise typer.BadParameter("must end in .png, .jpg or .webp", param_hint="-o")
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter("its folder does not exist", param_hint="-o")
    request = assistant_pb2.GenerateRequest(
        mode=common_pb2.OUTPUT_MODE_IMAGE,
        image_format=common_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{kind}"),
        visible_mark=visible_mark,
        adapter=adapter,
    )
    request.messages.add(role=assistant_pb2.ROLE_USER, parts=[assistant_pb2.Part(text=description)])
    if size is not None:
        request.image_size = size
    if seed is not None:
        request.sampling.seed = seed
    with stdout_reserved(as_json), err.status("drawing"):
        answer, where = asyncio.run(_draw(request, server, local))
    image = answer.images[0]
    replace_file(output, image.data)
    if as_json:
        facts = {"mime_type": image.mime_type, "width": image.width, "height": image.height}
        document({"file": str(output), "sha256": image.sha256, **facts, **answer.to_json()})
    else:
        out.print(str(output), markup=False)
        say(f"{image.width}×{image.height} px, seed {answer.finish.usage.seed} · {footer(answer, where)}")


async def _draw(
    request: assistant_pb2.GenerateRequest, server: str | None, local: bool
) -> tuple[Answer, str]:
    from services.commands.answers import gather
    from services.commands.assistants import connect

    async with connect(server, local) as assistant:
        answer = await gather(assistant, request, names=_NAMES)
    if not answer.images:
        raise Unavailable("the assistant sent no picture; try again")
    return answer, assistant.where
