"""What a version's own requests and answers say about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from services.errors import Unavailable
from services.rollout.measured import Measured
from services.rollout.meters import Meter, NoMeter
from services.rollout.probe import Probe
from services.rollout.version import Version


@dataclass
class Evidence:
    """
    Attributes:
        meter: of requests; none measures nothing.
        probe: asks the gateway; None = it is not asked.
    """

    meter: Meter = field(default_factory=NoMeter)
    probe: Probe | None = None

    @property
    def measures(self) -> bool:
        return not isinstance(self.meter, NoMeter)

    def mark(self) -> Any:
        return self.meter.mark()

    def since(self, mark: Any) -> Measured:
        return self.meter.since(mark)

    def doubt(self, version: Version) -> str:
        """Why it is not sure that `version` answers; empty where it is, or where nothing can be asked.

        Raises:
            Unauthenticated: the gateway refused the key.
        """
        if self.probe is None:
            return ""
        try:
            found = self.probe.digest()
        except Unavailable as error:
            return f"the gateway does not answer: {error}"
        if version.digest and found != version.digest:
            return f"the gateway answers with the weights {found[:12]}, not {version.digest[:12]}"
        return ""
