"""When the assistant that answers anew is out of reach."""

from __future__ import annotations

from typing import ClassVar

from services.errors import DeadlineExceeded, MedMaxError, Overloaded, Unauthenticated, Unavailable

GONE = (Unavailable, Overloaded, DeadlineExceeded, Unauthenticated)
"""Errors of the assistant that every other question would fail with too."""


class NoAssistant(MedMaxError):
    """The assistant that draws alternatives is out of reach; what needs none goes on."""

    code: ClassVar[str] = "no_assistant"
    http_status: ClassVar[int] = 503
