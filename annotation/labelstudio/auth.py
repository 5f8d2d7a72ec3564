"""Label Studio's two kinds of token, as httpx wants them.

A personal access token is a JWT that buys access tokens of a few minutes; a legacy token goes into every request.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Generator

import httpx
from pydantic import SecretStr

from services.errors import Unauthenticated

MARGIN_S = 30.0
"""An access token that lives less than this is renewed first."""
_REFRESH = "/api/token/refresh/"


def token_auth(token: SecretStr, base_url: str) -> httpx.Auth:
    """The right one for the token: three parts between dots are a JWT."""
    value = token.get_secret_value()
    return PersonalToken(value, base_url) if value.count(".") == 2 else LegacyToken(value)


class LegacyToken(httpx.Auth):
    """`Authorization: Token …`."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Token {self._token}"
        yield request


class PersonalToken(httpx.Auth):
    """`Authorization: Bearer …`, renewed ahead of its end and once after a 401.

    Raises:
        Unauthenticated: Label Studio refuses the personal access token.
    """

    requires_response_body = True

    def __init__(self, token: str, base_url: str) -> None:
        self._token = token
        self._url = base_url + _REFRESH
        self._access = ""
        self._ends = 0.0
        self._lock = threading.Lock()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if time.time() > self._ends - MARGIN_S:
            yield from self._renew(request)
        sent = self._access
        request.headers["Authorization"] = f"Bearer {sent}"
        response = yield request
        if response.status_code == 401:
            # Ended early, or the server's clock differs. A 401 means that nothing was done: any method may go again.
            if self._access == sent:
                yield from self._renew(request)
            request.headers["Authorization"] = f"Bearer {self._access}"
            yield request

    def _renew(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        renewal = httpx.Request(
            "POST", self._url, json={"refresh": self._token}, extensions=request.extensions
        )
        response = yield renewal
        if response.status_code in (400, 401, 403):
            raise Unauthenticated("Label Studio refuses the personal access token; make a new one")
        if response.is_success:
            access = str(response.json().get("access", ""))
            with self._lock:
                self._access, self._ends = access, expiry(access)
        # Whatever else is wrong, the request itself will meet it too.


def expiry(token: str) -> float:
    """When a JWT ends, in seconds since 1970; 0 where it does not say."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return 0.0
