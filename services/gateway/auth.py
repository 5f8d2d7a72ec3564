"""API keys: who calls, and how often they may.

Only SHA-256 digests of keys are held in memory. Every key is compared, in constant time, whatever was sent.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from services.config import Settings
from services.errors import ConfigurationError, Unauthenticated
from services.gateway.ratelimit import RateLimiter

LOCAL_CALLER = "local"
_HASHED = "sha256$"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def hash_key(key: str) -> str:
    """`key` as it may stand in MEDMAX_API_KEYS in place of itself: `sha256$<hex>`."""
    return _HASHED + hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True)
class ApiKey:
    """A key's name and the SHA-256 of the key."""

    name: str
    digest: bytes

    @classmethod
    def parse(cls, entry: str) -> Self:
        """From `NAME:KEY`, `NAME:sha256$<hex>`, `KEY` or `sha256$<hex>`; a nameless key is `key-<8 hex digits>`.

        Raises:
            ConfigurationError: the entry has none of these forms. The message does not repeat it.
        """
        name, colon, secret = entry.partition(":")
        if not colon:
            name, secret = "", entry
        if colon and not _NAME.fullmatch(name):
            raise ConfigurationError(
                "a key's name has 1 to 64 characters of A-Z a-z 0-9 . _ -", field="MEDMAX_API_KEYS"
            )
        if not secret:
            raise ConfigurationError(f"the key named {name} is empty", field="MEDMAX_API_KEYS")
        if secret.startswith(_HASHED):
            hexadecimal = secret.removeprefix(_HASHED)
            if not re.fullmatch(r"[0-9A-Fa-f]{64}", hexadecimal):
                raise ConfigurationError(
                    "sha256$ must be followed by 64 hexadecimal digits", field="MEDMAX_API_KEYS"
                )
            digest = bytes.fromhex(hexadecimal)
        else:
            digest = hashlib.sha256(secret.encode()).digest()
        return cls(name or f"key-{digest.hex()[:8]}", digest)


class Gate:
    """Tells who calls and lets them in, or not.

    Without keys everybody is `local` and no rate limit holds; `services.config.load` allows that on loopback only.

    Raises:
        ConfigurationError: an entry of `settings.api_keys` has no valid form.
    """

    def __init__(self, settings: Settings) -> None:
        self._keys = tuple(ApiKey.parse(entry.get_secret_value()) for entry in settings.api_keys)
        self._limiter = RateLimiter(settings.requests_per_minute)

    def authenticate(self, authorization: str | None) -> str:
        """Name of the caller whose `Authorization` header this is.

        Raises:
            Unauthenticated: no key, or a wrong one.
        """
        if not self._keys:
            return LOCAL_CALLER
        scheme, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise Unauthenticated("a key is needed: `Authorization: Bearer <key>`", field="Authorization")
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        matches = [key.name for key in self._keys if hmac.compare_digest(digest, key.digest)]
        if not matches:
            raise Unauthenticated("the key is wrong", field="Authorization")
        return matches[0]

    def admit(self, authorization: str | None) -> str:
        """As `authenticate`, and counts the request against the key's rate.

        Raises:
            Unauthenticated: no key, or a wrong one.
            RateLimited: too many requests with this key.
        """
        caller = self.authenticate(authorization)
        if self._keys:
            self._limiter.take(caller)
        return caller

    def authenticate_metadata(self, metadata: Iterable[tuple[str, Any]]) -> str:
        """As `authenticate`, from gRPC metadata."""
        return self.authenticate(authorization_of(metadata))


def authorization_of(metadata: Iterable[tuple[str, Any]]) -> str | None:
    """The `authorization` entry of gRPC metadata."""
    for key, value in metadata:
        if key.lower() == "authorization":
            return value if isinstance(value, str) else bytes(value).decode("utf-8", "surrogateescape")
    return None
