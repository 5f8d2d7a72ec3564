"""The fields of a `GenerateRequest` under the names that a REST caller gave them."""

from __future__ import annotations

import re

from services.errors import MedMaxError


class Names:
    """Maps a field's path in the proto to its path in the body that was received."""

    def __init__(self) -> None:
        self._names = {"context.timeout_ms": "X-Request-Timeout-Ms", "context.request_id": "X-Request-ID"}

    def add(self, proto: str, received: str) -> None:
        """Everything at or below `proto` came from `received`."""
        self._names[proto] = received

    def translate(self, error: MedMaxError) -> MedMaxError:
        """The same error with its field under the caller's name; the longest known prefix counts."""
        if error.field is None:
            return error
        path = error.field
        while path not in self._names:
            shorter = re.sub(r"(\.[^.\[]+|\[\d+\]|^[^.\[]+)$", "", path)
            if not shorter or shorter == path:
                return error
            path = shorter
        field = self._names[path] + error.field[len(path) :]
        return type(error)(error.message, field=field, retry_after_s=error.retry_after_s)
