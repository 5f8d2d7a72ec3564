"""Request bodies: read up to the limit, parsed as strict JSON."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from fastapi import Request
from starlette.requests import ClientDisconnect

from services.errors import Cancelled, DeadlineExceeded, InvalidInput, PayloadTooLarge, UnsupportedMediaType

MAX_DEPTH = 32


async def read_body(request: Request, limit: int, timeout_s: float) -> bytes:
    """The body's bytes, counted while they come in.

    Raises:
        UnsupportedMediaType: not `application/json`.
        PayloadTooLarge: more than `limit` bytes.
        DeadlineExceeded: not all there after `timeout_s`.
        Cancelled: the caller went away.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType("must be application/json", field="Content-Type")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    _too_large(limit)
                chunks.append(chunk)
    except TimeoutError:
        raise DeadlineExceeded(f"the body took more than {timeout_s:g} s to arrive", field="body") from None
    except ClientDisconnect:
        raise Cancelled("the caller went away") from None
    return b"".join(chunks)


def _too_large(limit: int) -> NoReturn:
    raise PayloadTooLarge(f"at most {limit:,} bytes (MEDMAX_MAX_REQUEST_BYTES)", field="body")


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`.

    Raises:
        InvalidInput: no UTF-8, no JSON, no object, a name given twice, NaN or an infinite number, nested too
            deeply, or a string with U+0000 or half a surrogate pair.
    """
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"is not UTF-8 at byte {error.start:,}", field="body") from None
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}", field="body"
        ) from None
    except RecursionError:
        _too_deep()
    except ValueError:
        raise InvalidInput("holds a number with too many digits", field="body") from None
    if not isinstance(value, dict):
        raise InvalidInput("must be a JSON object", field="body")
    _check_values(value)
    return value


def path_of(parts: Sequence[str | int]) -> str:
    """`("messages", 0, "role")` as `messages[0].role`."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidInput("is given twice in one object", field=_printable(name))
            seen.add(name)
    return value


def _too_deep() -> NoReturn:
    raise InvalidInput(f"is nested more than {MAX_DEPTH} levels deep", field="body")


def _printable(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode().replace("\0", "\\0")[:64]


def _check_values(root: dict[str, Any]) -> None:
    stack: list[tuple[Any, tuple[str | int, ...]]] = [(root, ())]
    while stack:
        value, path = stack.pop()
        if isinstance(value, str):
            _check_text(value, path)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise InvalidInput("must be a finite number", field=path_of(path))
        elif isinstance(value, dict | list):
            if len(path) >= MAX_DEPTH:
                _too_deep()
            if isinstance(value, list):
                stack.extend((item, (*path, i)) for i, item in enumerate(value))
                continue
            for name, item in value.items():
                _check_text(name, (*path, _printable(name)))
                stack.append((item, (*path, name)))


def _check_text(text: str, path: tuple[str | int, ...]) -> None:
    if "\0" in text:
        raise InvalidInput("must not hold the character U+0000", field=path_of(path))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput("holds half a surrogate pair", field=path_of(path)) from None
