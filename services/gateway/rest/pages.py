"""Pages of other packages for operators, from the entry points `medmax.pages`: a function of the settings to HTML.

The gateway knows who may see them; what they show it imports when somebody asks.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from importlib.metadata import entry_points

from fastapi import FastAPI, Request
from starlette.responses import Response

from services.config import Settings
from services.errors import PermissionDenied, Unauthenticated
from services.gateway.auth import Gate

GROUP = "medmax.pages"
Page = Callable[[Settings], str]
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def install(app: FastAPI, settings: Settings, gate: Gate) -> None:
    """`GET /pages/<name>` for every entry point."""
    for entry in entry_points(group=GROUP):
        add(app, f"/pages/{entry.name}", entry.load, settings, gate)


def add(app: FastAPI, path: str, load: Callable[[], Page], settings: Settings, gate: Gate) -> None:
    """One page at `path`.

    Args:
        load: gives the page's function; called with every request, from a thread.
    """

    async def show(request: Request) -> Response:
        try:
            operator(settings, gate, request.headers.get("authorization"))
        except Unauthenticated:
            # Browsers send a key only where they are asked for a password.
            return Response(
                "An operator's API key is needed: any user name, the key as password.\n",
                status_code=401,
                media_type="text/plain",
                headers={"WWW-Authenticate": 'Basic realm="MedMax operators", charset="UTF-8"'},
            )
        html = await asyncio.to_thread(lambda: load()(settings))
        return Response(html, media_type="text/html", headers=_HEADERS)

    app.add_api_route(path, show, methods=["GET"], include_in_schema=False)


def operator(settings: Settings, gate: Gate, authorization: str | None) -> str:
    """Who asks, an operator.

    Raises:
        Unauthenticated: no key, or a wrong one.
        PermissionDenied: a key whose name MEDMAX_OPERATORS does not hold.
    """
    caller = gate.authenticate(_bearer(authorization))
    # Without keys everybody is on this machine.
    if settings.api_keys and caller not in settings.operators:
        raise PermissionDenied("this key's name is not in MEDMAX_OPERATORS", field="Authorization")
    return caller


def _bearer(authorization: str | None) -> str | None:
    """The password of basic authentication, which browsers know, is the key."""
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return (
            None
            if authorization is None
            else authorization.encode("latin-1").decode("utf-8", "surrogateescape")
        )
    try:
        text = base64.b64decode(given.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None
    return f"Bearer {text.partition(':')[2]}"
