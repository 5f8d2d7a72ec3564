"""A real Label Studio for tests, items about phantoms, and what an expert's browser would send."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from numpy.typing import NDArray
from PIL import Image

from annotation.core import Item, Kind, Part, Picture, Turn
from annotation.labelstudio.server import Server, running
from evaluation.phantoms.catalogue import draw
from evaluation.phantoms.core import Finding
from services.errors import MedMaxError
from services.gateway.rest.errors import error_response
from tests.support.pictures import encode


@pytest.fixture(scope="session")
def labelstudio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests of a session: a start takes up to a minute. Each test makes its own items.

    MEDMAX_TEST_LABELSTUDIO names a folder whose database is used again, so that a start takes seconds.
    """
    kept = os.environ.get("MEDMAX_TEST_LABELSTUDIO")
    with running(Path(kept) if kept else tmp_path_factory.mktemp("labelstudio")) as server:
        yield server


@cache
def picture(seed: int, modality: str = "chest_xray", synthetic: bool = False, size: int = 384) -> Picture:
    """A phantom, as large as pictures are."""
    shown = draw(seed, modality)
    image = Image.fromarray(shown.picture).resize((size, size), Image.Resampling.BICUBIC)
    data = encode(image)
    return Picture(hashlib.sha256(data).hexdigest(), data, synthetic)


@cache
def with_finding(seed: int, finding: Finding, size: int = 384) -> Picture:
    image = Image.fromarray(draw(seed, "chest_xray", [finding]).picture)
    data = encode(image.resize((size, size), Image.Resampling.BICUBIC))
    return Picture(hashlib.sha256(data).hexdigest(), data)


REPORT = (
    "Chest radiograph, frontal view. The heart is of normal size. There is a small left pleural effusion.\n"
    "Impression: small left pleural effusion."
)


def item(kind: Kind, id: str, seed: int = 7, **changes: Any) -> Item:
    """A plausible item of the kind."""
    film = with_finding(seed, Finding("pleural effusion", "right", "large"))
    parts: Mapping[Kind, Mapping[str, Any]] = {
        Kind.CHAT: {
            "dialogue": (
                Turn("user", (film, "What does this chest radiograph show?")),
                Turn("assistant", ("It shows a pleural effusion.",)),
                Turn("user", ("Which side is it on, and how large is it? Should it be drained?",)),
            ),
            "answer": ("It is a small effusion on the left side. It should be drained today.",),
            "task": "visual_chat",
        },
        Kind.REPORT: {
            "dialogue": (Turn("user", (film, "Write a report for this image.")),),
            "answer": (REPORT,),
            "task": "captioning",
        },
        Kind.PICTURE: {
            "dialogue": (Turn("user", ("Draw a chest radiograph with a large right pleural effusion.",)),),
            "answer": (picture(seed + 1, synthetic=True),),
            "task": "image_generation",
        },
        Kind.PREFERENCE: {
            "dialogue": (Turn("user", (film, "Describe this image.")),),
            "answer": ("This chest radiograph shows a large right pleural effusion.",),
            "alternatives": (
                ("This chest radiograph shows a large right pleural effusion.",),
                ("A normal chest.",),
            ),
            "task": "captioning",
        },
    }
    values: dict[str, Any] = {
        "id": id,
        "kind": kind,
        "modality": "chest_xray",
        "model_id": "medmax-phantom",
        "risk": 0.4,
        **parts[kind],
        **changes,
    }
    return Item(**values)


def ranked(id: str, count: int = 3) -> Item:
    """Alternatives of text and pictures to rank."""
    alternatives: list[tuple[Part, ...]] = [
        ("Fluid between the lung and the chest wall hides the right base.", picture(21, synthetic=True)),
        ("The left lung has collapsed.", picture(22, synthetic=True)),
        ("An enlarged heart.", picture(23, synthetic=True)),
        ("Nothing is wrong.", picture(24, synthetic=True)),
    ]
    return item(
        Kind.PREFERENCE,
        id,
        dialogue=(Turn("user", ("Explain a large right pleural effusion with an example picture.",)),),
        answer=alternatives[0],
        alternatives=tuple(alternatives[:count]),
        task="multimodal_generation",
    )


def choices(name: str, *values: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": "dialogue", "type": "choices", "value": {"choices": list(values)}}


def texts(name: str, *values: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": "dialogue", "type": "textarea", "value": {"text": list(values)}}


def stars(name: str, value: int) -> dict[str, Any]:
    return {"from_name": name, "to_name": "dialogue", "type": "rating", "value": {"rating": value}}


def rectangle(
    id: str, label: str, box: Sequence[float], size: tuple[int, int] = (384, 384)
) -> list[dict[str, Any]]:
    """As the editor sends one: the shape and its label. `box` in percent: x, y, width, height."""
    where = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"rotation": 0}
    return _marked(id, label, "rectangle", where, size)


def stroke(id: str, label: str, mask: NDArray[np.bool_]) -> list[dict[str, Any]]:
    where = {"format": "rle", "rle": encode_rle(mask)}
    return _marked(id, label, "brush", where, (mask.shape[1], mask.shape[0]))


def _marked(
    id: str, label: str, tool: str, where: Mapping[str, Any], size: tuple[int, int]
) -> list[dict[str, Any]]:
    shape = {
        "id": id,
        "to_name": "picture",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "item_index": 0,
    }
    return [
        shape | {"from_name": tool, "type": tool, "value": dict(where)},
        shape | {"from_name": "label", "type": "labels", "value": {**where, "labels": [label]}},
    ]


def encode_rle(mask: NDArray[np.bool_], lengths: Sequence[int] = (3, 4, 8, 16)) -> list[int]:
    """A mask as Label Studio's editor codes it: RGBA pixels, alpha 255 inside.

    Runs of equal words are repeats, the rest literal; both are cut to what the longest run field holds.
    """
    words = np.zeros((*mask.shape, 4), np.uint8)
    words[mask] = 255
    flat = words.reshape(-1)
    bits = [_bits(len(flat), 32), _bits(7, 5), *(_bits(length - 1, 4) for length in lengths)]
    longest = 1 << max(lengths)
    ends = np.append(np.flatnonzero(np.diff(flat)) + 1, len(flat))
    start = 0
    literal: list[int] = []

    def run(repeat: bool, values: list[int], count: int) -> None:
        index = next(i for i, length in enumerate(lengths) if count <= 1 << length)
        bits.append(f"{int(repeat)}{index:02b}{count - 1:0{lengths[index]}b}")
        bits.extend(_bits(value, 8) for value in values)

    for end in ends.tolist():
        if end - start < 4:
            literal += flat[start:end].tolist()
        else:
            for first in range(0, len(literal), longest):
                part = literal[first : first + longest]
                run(False, part, len(part))
            literal = []
            for first in range(start, end, longest):
                run(True, [int(flat[start])], min(longest, end - first))
        start = end
    for first in range(0, len(literal), longest):
        part = literal[first : first + longest]
        run(False, part, len(part))
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]


def _bits(value: int, length: int) -> str:
    return f"{value:0{length}b}"


@contextmanager
def hosting(*routers: APIRouter) -> Iterator[str]:
    """The address of a real server on loopback with these routes and our errors, for Label Studio to call."""
    app = FastAPI()
    app.add_exception_handler(MedMaxError, lambda request, error: error_response(error))  # type: ignore[arg-type]
    for routes in routers:
        app.include_router(routes)
    # The socket is ours before the server starts: nobody can take the port in between.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
