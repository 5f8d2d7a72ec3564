"""The installation's secret, and what is derived from it: one to keep, several to use."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from annotation.loop.settings import ReviewSettings
from services.errors import ConfigurationError

FILE = "review.secret"


@dataclass(frozen=True)
class Secrets:
    """key: of keyed hashes; the others are for one purpose each."""

    key: bytes
    webhook: SecretStr
    pictures: SecretStr
    drafts: SecretStr

    @classmethod
    def of(cls, settings: ReviewSettings, folder: Path) -> Secrets:
        """From the settings, or from a file below `folder` that is made once and that only its owner reads.

        Raises:
            ConfigurationError: the file is damaged or cannot be written.
        """
        given = settings.secret
        master = given.get_secret_value().encode() if given is not None else _kept(folder / FILE)
        webhook = settings.labelstudio.webhook_secret or SecretStr(_derived(master, "webhook"))
        return cls(
            hashlib.blake2b(master, digest_size=32, person=b"routing").digest(),
            webhook,
            SecretStr(_derived(master, "pictures")),
            SecretStr(_derived(master, "drafts")),
        )


def _derived(master: bytes, purpose: str) -> str:
    return hmac.new(master, f"medmax review {purpose}".encode(), hashlib.sha256).hexdigest()


def _kept(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            part = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, path)  # of two that make one at once the first stays
            except FileExistsError:
                pass  # the other's is as good
            finally:
                part.unlink()
        found = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(
            f"{path.name} cannot be kept: {type(error).__name__}", field="review.secret"
        ) from None
    if not 16 <= len(found) <= 64:
        raise ConfigurationError(f"{path.name} is damaged", field="review.secret")
    return found
