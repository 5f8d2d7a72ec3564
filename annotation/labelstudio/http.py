"""Requests to Label Studio: time limits, retries of what may be repeated, and errors of our tree.

Answers' bodies never enter a message: they may quote a patient's words.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from pydantic import SecretStr

from annotation.labelstudio.auth import token_auth
from services.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidInput,
    MedMaxError,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)

# Sent twice they do what they do once; so does a PATCH that sets values.
REPEATABLE = frozenset({"GET", "PUT", "PATCH", "DELETE"})
ATTEMPTS = 4
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 10.0


class Connection:
    """One Label Studio, one user. Safe for threads.

    Args:
        base_url: `http://host:port`, or with a path below which Label Studio lives.
        token: personal access token or legacy token.
        timeout_s: for each attempt.

    Raises:
        ConfigurationError: the address is none.
    """

    def __init__(self, base_url: str, token: SecretStr, timeout_s: float = 30.0) -> None:
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.scheme not in ("http", "https") or not url.host or url.userinfo:
            raise ConfigurationError("must be http(s)://host[:port] without a user", field="labelstudio_url")
        self.base_url = base_url.rstrip("/")
        self._client = httpx.Client(
            base_url=self.base_url,
            auth=token_auth(token, self.base_url),
            timeout=httpx.Timeout(timeout_s),
            headers={"Accept": "application/json"},
        )

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON behind `path`."""
        return self.request("GET", path, params=query)

    def post(self, path: str, body: Any, **query: Any) -> Any:
        return self.request("POST", path, params=query, json=body)

    def patch(self, path: str, body: Any) -> Any:
        return self.request("PATCH", path, json=body)

    def delete(self, path: str, body: Any = None) -> None:
        """Gone afterwards, whether or not it was there."""
        try:
            self.request("DELETE", path, json=body)
        except NotFound:
            return

    def request(self, method: str, path: str, *, repeatable: bool | None = None, **options: Any) -> Any:
        """The answer's JSON, or None for an empty one.

        Args:
            repeatable: whether a failed attempt may be repeated; by method where None.

        Raises:
            Unauthenticated, PermissionDenied, NotFound, Overloaded, InvalidInput, PayloadTooLarge: as answered.
            DeadlineExceeded: no answer in time.
            Unavailable: out of reach, or a defect there.
        """
        attempts = ATTEMPTS if (method in REPEATABLE if repeatable is None else repeatable) else 1
        for attempt in range(attempts):
            try:
                return self._once(method, path, options)
            except (DeadlineExceeded, Overloaded, Unavailable) as error:
                wait = error.retry_after_s or FIRST_WAIT_S * 2**attempt * random.uniform(0.7, 1.3)
                if attempt + 1 == attempts or wait > LONGEST_WAIT_S:
                    raise
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, options: Mapping[str, Any]) -> Any:
        try:
            response = self._client.request(method, path, **options)
        except httpx.TimeoutException:
            raise DeadlineExceeded("Label Studio did not answer in time") from None
        except httpx.TransportError:
            raise Unavailable("Label Studio is out of reach") from None
        if not response.is_success:
            raise failure(response)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            raise Unavailable("what answered is no Label Studio: its answer is no JSON") from None


def failure(response: httpx.Response) -> MedMaxError:
    """The error that a response stands for."""
    status = response.status_code
    match status:
        case 401:
            return Unauthenticated("Label Studio refuses the token")
        case 403:
            return PermissionDenied("Label Studio does not let this token's user do that")
        case 404:
            return NotFound("Label Studio has no such thing")
        case 413:
            return PayloadTooLarge("Label Studio refuses a request of this size")
        case 429:
            return Overloaded("Label Studio has too much to do", retry_after_s=_retry_after(response))
        case _ if 300 <= status < 400:
            return Unavailable("Label Studio lives at another address: it answered with a redirection")
        case _ if status < 500:
            return InvalidInput(f"Label Studio refuses the request with status {status}")
    return Unavailable(f"Label Studio failed with status {status}", retry_after_s=_retry_after(response))


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
