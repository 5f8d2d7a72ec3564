"""Identifiers that sort by the time they were made: a prefix and the 128 bits of a UUIDv7 (RFC 9562) in hex."""

from __future__ import annotations

import re
import secrets
import time

from services.errors import InvalidInput

INTERACTION, FEEDBACK = "int_", "fbk_"
_SHAPE = re.compile(r"(int|fbk)_[0-9a-f]{32}")


def _uuid7() -> int:
    milliseconds = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    return (
        (milliseconds & (1 << 48) - 1) << 80
        | 7 << 76
        | (random >> 62) << 64
        | 2 << 62
        | random & (1 << 62) - 1
    )


def new_interaction_id() -> str:
    """`int_` and 32 hexadecimal digits, in order of time to the millisecond."""
    return f"{INTERACTION}{_uuid7():032x}"


def new_feedback_id() -> str:
    """`fbk_` and 32 hexadecimal digits, in order of time to the millisecond."""
    return f"{FEEDBACK}{_uuid7():032x}"


def check_id(value: str, prefix: str = INTERACTION, field: str = "interaction_id") -> str:
    """`value` itself.

    Raises:
        InvalidInput: `value` is no identifier with this prefix.
    """
    if not (value.startswith(prefix) and _SHAPE.fullmatch(value)):
        raise InvalidInput(f"must be {prefix} and 32 hexadecimal digits", field=field)
    return value
