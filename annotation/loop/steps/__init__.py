"""The steps, in the order of an item's way. Each is idempotent: repeated, or cut short and repeated, it does the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from annotation.loop.context import Loop
from annotation.loop.result import Result
from annotation.loop.settings import StepSettings
from annotation.loop.steps import (
    build,
    calibrate,
    clean,
    collect,
    evaluate,
    judge,
    promote,
    publish,
    route,
    tidy,
    train,
)


@dataclass(frozen=True)
class Step:
    """
    Attributes:
        run: one bounded pass.
        wakes: steps for which it makes work.
    """

    name: str
    run: Callable[[Loop], Result]
    wakes: tuple[str, ...] = ()
    seldom: bool = False

    def interval_s(self, settings: StepSettings) -> float:
        return settings.route_interval_s if self.seldom else settings.interval_s


STEPS = {
    step.name: step
    for step in (
        Step("tidy", tidy.run, ("publish",), seldom=True),
        Step("route", route.run, ("clean",), seldom=True),
        Step("clean", clean.run, ("publish",)),
        Step("publish", publish.run),
        Step("collect", collect.run, ("judge",)),
        Step("judge", judge.run, ("calibrate", "build")),
        Step("calibrate", calibrate.run, seldom=True),
        Step("build", build.run, ("train",)),
        Step("train", train.run, ("evaluate",)),
        Step("evaluate", evaluate.run, ("promote",)),
        Step("promote", promote.run),
    )
}
