"""The steps, in the order of an item's way. Each is idempotent: repeated, or cut short and repeated, it does the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from annotation.loop.context import Loop
from annotation.loop.result import Result
from annotation.loop.settings import StepSettings


@dataclass(frozen=True)
class Step:
    """
    Attributes:
        name: of its module here, too.
        wakes: steps for which it makes work.
    """

    name: str
    wakes: tuple[str, ...] = ()
    seldom: bool = False

    def run(self, loop: Loop) -> Result:
        """One bounded pass."""
        return self.load()(loop)

    def load(self) -> Callable[[Loop], Result]:
        """Import it, which takes long for some: a command pays for its own step alone."""
        return cast(Callable[[Loop], Result], import_module(f"{__name__}.{self.name}").run)

    def interval_s(self, settings: StepSettings) -> float:
        return settings.route_interval_s if self.seldom else settings.interval_s


STEPS = {
    step.name: step
    for step in (
        Step("tidy", ("publish",), seldom=True),
        Step("route", ("clean",), seldom=True),
        Step("clean", ("publish",)),
        Step("publish"),
        Step("collect", ("judge",)),
        Step("judge", ("calibrate", "build")),
        Step("calibrate", seldom=True),
        Step("build", ("train",)),
        Step("train", ("evaluate",)),
        Step("evaluate", ("promote",)),
        Step("promote"),
    )
}
