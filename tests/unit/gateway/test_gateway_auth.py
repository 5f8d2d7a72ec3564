"""API keys and their rate."""

from __future__ import annotations

import gc
import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from services.config import Settings
from services.errors import ConfigurationError, RateLimited, Unauthenticated
from services.gateway.auth import ApiKey, Gate, authorization_of, hash_key
from services.gateway.ratelimit import RateLimiter


def gate(*entries: str, **fields: Any) -> Gate:
    return Gate(Settings(api_keys=tuple(SecretStr(entry) for entry in entries), **fields))


def test_each_key_has_its_name() -> None:
    checked = gate("ris:alpha", f"pacs:{hash_key('beta')}", "gamma", hash_key("delta"))
    names = [checked.authenticate(f"Bearer {key}") for key in ("alpha", "beta", "gamma", "delta")]
    digest = hashlib.sha256(b"gamma").hexdigest()
    assert names[:3] == ["ris", "pacs", f"key-{digest[:8]}"]
    assert names[3].startswith("key-")


@pytest.mark.parametrize(
    "sent",
    [None, "", "Bearer", "Bearer ", "Bearer beta", "alpha", "Basic alpha", "Bearer ris:alpha", "Bearer alph"],
)
def test_anything_but_the_right_key_is_refused(sent: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        gate("ris:alpha").authenticate(sent)
    assert caught.value.field == "Authorization"
    assert "alpha" not in caught.value.message


def test_hash_of_a_key_does_not_open_the_gate() -> None:
    with pytest.raises(Unauthenticated):
        gate(f"ris:{hash_key('alpha')}").authenticate(f"Bearer {hash_key('alpha')}")


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_no_text_opens_the_gate_by_accident_or_breaks_it(sent: str) -> None:
    with pytest.raises(Unauthenticated):
        gate("ris:only-this-one").authenticate(f"Bearer {sent}")


def test_keys_may_hold_any_characters() -> None:
    assert gate("ris:clé:深").authenticate("Bearer clé:深") == "ris"


def test_without_keys_everybody_is_local_and_unlimited() -> None:
    free = gate(requests_per_minute=1)
    assert {free.admit(None) for _ in range(5)} == {"local"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("ris:", "the key named ris is empty"),
        ("ri s:secret-key", "1 to 64 characters"),
        ("ris:sha256$abc", "64 hexadecimal digits"),
    ],
)
def test_malformed_entry_is_refused_without_repeating_it(entry: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        ApiKey.parse(entry)
    assert caught.value.field == "MEDMAX_API_KEYS"
    assert "secret-key" not in str(caught.value)


def test_gate_keeps_digests_only() -> None:
    checked = gate("ris:a-key-that-must-not-stay")
    gc.collect()
    assert "a-key-that-must-not-stay" not in repr(vars(checked))
    assert all(isinstance(key.digest, bytes) and len(key.digest) == 32 for key in checked._keys)


def test_metadata_may_hold_bytes_and_any_case() -> None:
    assert authorization_of([("x", "y"), ("Authorization", b"Bearer a")]) == "Bearer a"
    assert authorization_of([]) is None


def test_bucket_empties_and_fills_again() -> None:
    now = [100.0]
    limiter = RateLimiter(60, clock=lambda: now[0])
    for _ in range(60):
        limiter.take("ris")
    with pytest.raises(RateLimited, match="60 requests per minute") as caught:
        limiter.take("ris")
    assert caught.value.retry_after_s == pytest.approx(1.0)
    limiter.take("pacs")
    now[0] += 1.0
    limiter.take("ris")
    with pytest.raises(RateLimited):
        limiter.take("ris")
    now[0] += 3600
    for _ in range(60):
        limiter.take("ris")
    with pytest.raises(RateLimited):
        limiter.take("ris")


def test_refused_keys_are_not_counted() -> None:
    checked = gate("ris:alpha", requests_per_minute=1)
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            checked.admit("Bearer beta")
    assert checked.admit("Bearer alpha") == "ris"
    with pytest.raises(RateLimited):
        checked.admit("Bearer alpha")
