"""Asks the gateway one short question: the whole way works, and the answer says which weights gave it."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from services.errors import Unauthenticated, Unavailable
from services.rollout.meters import outside, shown

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Probe:
    """
    Args:
        url: of the gateway.
        key: API key; empty = none.
    """

    url: str
    key: str = ""

    def digest(self) -> str:
        """SHA-256 over the weights that answered, hex. The question is not stored.

        Raises:
            Unavailable: no answer, or one that makes no sense.
            Unauthenticated: the key was refused.
        """
        where = shown(self.url)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        body = {
            "messages": [{"role": "user", "content": "Is there a finding?"}],
            "modalities": ["text"],
            "max_tokens": 1,
            "temperature": 0,
            "store": False,
        }
        url = f"{self.url.rstrip('/')}/v1/chat/completions"
        try:
            answer = httpx.post(url, json=body, headers=headers, timeout=TIMEOUT_S, trust_env=outside(url))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"no answer ({type(error).__name__})", field=where) from None
        if answer.status_code in {401, 403}:
            raise Unauthenticated(
                f"the gateway refused the key (HTTP {answer.status_code}); set MEDMAX_API_KEY", field=where
            )
        try:
            digest = answer.json()["system_fingerprint"] if answer.status_code == 200 else None
        except (ValueError, KeyError, TypeError):
            digest = None
        if not isinstance(digest, str):
            raise Unavailable(f"a question was answered with HTTP {answer.status_code}", field=where)
        return digest
