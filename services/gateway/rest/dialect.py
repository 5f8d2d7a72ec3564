"""OpenAI's fields that this service does not have: accepted where they change nothing, refused by name where they would."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.errors import UnsupportedField

NOTHING: tuple[Any, ...] = (None,)
EMPTY: tuple[Any, ...] = (None, [], {})

# Field → the values with which it changes nothing.
CHAT: dict[str, tuple[Any, ...]] = {
    "audio": NOTHING,
    "frequency_penalty": (None, 0),
    "function_call": (None, "none", "auto"),
    "functions": EMPTY,
    "logit_bias": EMPTY,
    "moderation": NOTHING,
    "n": (None, 1),
    "prediction": NOTHING,
    "presence_penalty": (None, 0),
    "prompt_cache_options": NOTHING,
    "reasoning_effort": (None, "none"),
    "response_format": (None, {"type": "text"}),
    "tool_choice": (None, "none", "auto"),
    "tools": EMPTY,
    "verbosity": (None, "medium"),
    "web_search_options": NOTHING,
}
MESSAGE: dict[str, tuple[Any, ...]] = {
    "annotations": EMPTY,
    "audio": NOTHING,
    "function_call": NOTHING,
    "refusal": NOTHING,
    "tool_call_id": NOTHING,
    "tool_calls": EMPTY,
}
IMAGES: dict[str, tuple[Any, ...]] = {
    "background": (None, "auto", "opaque"),
    "complexity": NOTHING,
    "frame_count": (None, 1),
    "frame_duration_ms": NOTHING,
    "moderation": (None, "auto", "low"),
    "output_compression": NOTHING,
    "partial_images": (None, 0),
    "quality": (None, "auto", "standard"),
    "response_format": (None, "b64_json"),
    "stream": (None, False),
    "style": NOTHING,
    "svg": NOTHING,
}


def drop_neutral(value: dict[str, Any], table: dict[str, tuple[Any, ...]], prefix: str = "") -> None:
    """Takes the fields of `table` out of `value`.

    Raises:
        UnsupportedField: one of them has a value that would change the answer.
    """
    for name in table.keys() & value.keys():
        given, neutral = value.pop(name), table[name]
        if not any(given == other and type(given) in (type(other), float) for other in neutral):
            allowed = [repr(other) for other in neutral if other is not None]
            only = f"; leave it out or give {_either(allowed)}" if allowed else ""
            raise UnsupportedField(f"is not supported here{only}", field=f"{prefix}{name}")


def _either(values: Iterable[str]) -> str:
    return " or ".join(values)
