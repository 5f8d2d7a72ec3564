"""How long a request may still take, passed from hop to hop."""

from __future__ import annotations

import time
from dataclasses import dataclass

from services.errors import DeadlineExceeded


@dataclass(frozen=True)
class Deadline:
    """A point in this process's monotonic time, in seconds."""

    at: float

    @classmethod
    def after(cls, timeout_ms: int, limit_s: float) -> Deadline:
        """`timeout_ms` from now (0 = none given), at most `limit_s` seconds from now."""
        asked = timeout_ms / 1000 if timeout_ms else limit_s
        return cls(time.monotonic() + min(asked, limit_s))

    @property
    def remaining_s(self) -> float:
        return max(0.0, self.at - time.monotonic())

    @property
    def remaining_ms(self) -> int:
        """For the next hop's `RequestContext.timeout_ms`; at least 1, since 0 means no limit there."""
        return max(1, int(self.remaining_s * 1000))

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at

    def check(self) -> None:
        """Raises: DeadlineExceeded once the point has passed."""
        if self.passed:
            raise DeadlineExceeded("the request's time ran out", field="context.timeout_ms")
