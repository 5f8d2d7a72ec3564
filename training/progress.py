"""A progress bar per stage of a training run, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.progress import TimeRemainingColumn as TimeLeft

from services.commands.output import err

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Told the stage, step, steps and figures."""

_LINE_EVERY_S = 30.0


@contextmanager
def bars() -> Iterator[Progress]:
    """Bars with loss, steps, time gone and left; where nobody watches, a line every half minute."""
    if not err.is_terminal:
        yield _lines()
        return
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeft(),
    )
    with Bars(*columns, console=err) as shown:
        tasks: dict[str, TaskID] = {}

        def update(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total, figures="", completed=done)
            shown.update(tasks[stage], completed=done, figures=_words(figures))

        yield update


def _words(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in figures.items())


def _lines() -> Progress:
    last = 0.0
    begun: dict[str, tuple[int, float]] = {}

    def update(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        nonlocal last
        now = time.monotonic()
        first, begin = begun.setdefault(stage, (done, now))
        if now - last >= _LINE_EVERY_S or done == total:
            last = now
            left = f"  left {(now - begin) / (done - first) * (total - done):.0f} s" if done > first else ""
            err.print(f"{stage} {done}/{total}  {_words(figures)}{left}")

    return update
