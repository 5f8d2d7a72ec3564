"""One leaf file per task; a new file here is a new task, and nothing else changes.

A leaf has the constants of `Task` and the same three functions:

    wants(row) -> bool        whether the row belongs to the task
    ask(row) -> Question      what the model is asked; InvalidInput where the row does not do for it
    truth(row) -> Truth       what the answer is compared with; InvalidInput likewise
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from evaluation.suite.example import Question, Row, Truth
from services.errors import ConfigurationError, InvalidInput

FAMILIES = ("closed", "open", "mcq", "captioning", "image_generation", "mm_out", "visual_chat", "probe")


@dataclass(frozen=True)
class Task:
    """A leaf file.

    Attributes:
        name, version: identify answers; a new version (other prompt, other length) retires the older ones.
        family: one of FAMILIES.
        scorers: names; the first is the published one where there is one.
        column: heading in the published table; empty where the task is not in it.
        published: model → published figure in per cent (REFERENCES §1).
    """

    name: str
    version: int
    family: str
    scorers: tuple[str, ...]
    column: str
    published: Mapping[str, float]
    wants: Callable[[Row], bool]
    ask: Callable[[Row], Question]
    truth: Callable[[Row], Truth]


@cache
def all_tasks() -> dict[str, Task]:
    """Every task by name, in the order of families. Raises: ConfigurationError naming the leaf that lacks something."""
    found = []
    for info in pkgutil.iter_modules(__path__):
        leaf = importlib.import_module(f"{__name__}.{info.name}")
        try:
            task = Task(
                info.name, leaf.VERSION, leaf.FAMILY, leaf.SCORERS, leaf.COLUMN, leaf.PUBLISHED,
                leaf.wants, leaf.ask, leaf.truth,
            )  # fmt: skip
        except AttributeError as error:
            raise ConfigurationError(f"evaluation/tasks/{info.name}.py: {error}") from None
        if task.family not in FAMILIES:
            raise ConfigurationError(
                f"evaluation/tasks/{info.name}.py: FAMILY must be one of {', '.join(FAMILIES)}"
            )
        found.append(task)
    return {
        task.name: task for task in sorted(found, key=lambda task: (FAMILIES.index(task.family), task.name))
    }


def chosen(names: Iterable[str] | None) -> dict[str, Task]:
    """The tasks of these names or families; all for None. Raises: InvalidInput naming an unknown one."""
    known = all_tasks()
    if names is None:
        return known
    wanted: set[str] = set()
    for name in names:
        matching = {task.name for task in known.values() if name in (task.name, task.family)}
        if not matching:
            raise InvalidInput(
                f"there is no task or family {name!r}; tasks: {', '.join(known)}; families: {', '.join(FAMILIES)}",
                field="--tasks",
            )
        wanted |= matching
    return {name: task for name, task in known.items() if name in wanted}
