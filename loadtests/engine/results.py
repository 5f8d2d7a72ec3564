"""What was measured, round by round, and the rows and ratios of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtests.engine import figures
from loadtests.engine.figures import Ratio, Row
from loadtests.engine.jobs import Outcome
from loadtests.engine.works import ONE, OURS, Work

FIGURE: dict[str, Callable[[Outcome], float]] = {
    "text": figures.tokens_per_s,
    "questions": figures.tokens_per_s,
    "pictures": figures.pictures_per_s,
}
PROMPT_WORK = "one question, prompt tokens read"
"""`ours_over` of the ratio of what ten questions on one picture make the model read to what one does."""


@dataclass
class Cell:
    """One engine at one work on one model.

    Attributes:
        outcomes: by round; of mixed work the trial at the highest rate that met the objective.
        goodput: by round, of mixed work: answers a second at that rate; 0 where no rate met it.
        not_run: why it did not run (to the end); else empty.
        note: what else a reader of its figures must know.
    """

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    goodput: dict[int, float] = field(default_factory=dict)
    not_run: str = ""
    note: str = ""

    def figure(self, kind: str, round_: int) -> float | None:
        """What is compared: tokens, pictures or answers a second."""
        if kind == "mixed":
            return self.goodput.get(round_)
        outcome = self.outcomes.get(round_)
        return FIGURE[kind](outcome) if outcome else None


class Results:
    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._cells: dict[tuple[Work, str, str], Cell] = {}

    def cell(self, work: Work, model: str, engine: str) -> Cell:
        """The cell, made if need be; rows come in the order in which their cells were made."""
        return self._cells.setdefault((work, model, engine), Cell())

    def rows(self) -> list[tuple[Row, str]]:
        """Every engine's row, and a note: why it has no figures, or what else must be known."""
        found = []
        for (work, model, engine), cell in self._cells.items():
            if engine == ONE:
                continue
            name = Row(work.kind, work.callers or None, engine, model, self._dtype)
            outcomes = [cell.outcomes[i] for i in sorted(cell.outcomes)]
            row = figures.row(name, outcomes, list(cell.goodput.values()))
            found.append((row, f"not run: {cell.not_run}" if cell.not_run else cell.note))
        return found

    def ratios(self, model: str | None = None) -> list[Ratio]:
        """Ours over every other, of one model or of all together."""
        pairs: dict[tuple[Work, str], list[tuple[float, float]]] = {}
        for (work, of, engine), cell in self._cells.items():
            ours = self._cells.get((work, of, OURS))
            if ours is None or engine == OURS or model not in (None, of):
                continue
            label = PROMPT_WORK if engine == ONE else engine
            pairs.setdefault((work, label), []).extend(_pairs(work.kind, engine, ours, cell))
        made = [figures.ratio(w.kind, w.callers or None, label, p) for (w, label), p in pairs.items()]
        return [ratio for ratio in made if ratio is not None]

    def to_json(self, machine: dict[str, Any], versions: dict[str, str]) -> dict[str, Any]:
        return {
            "machine": machine,
            "versions": versions,
            "rows": [row.to_json() for row, _ in self.rows()],
            "ratios": [ratio.to_json() for ratio in self.ratios()],
        }

    def failures(self, versions: Mapping[str, str]) -> dict[str, str]:
        """Engines that did not run (to the end), with their versions, as far as known, and why, each reason once."""
        found: dict[str, list[str]] = {}
        for (_, _, engine), cell in self._cells.items():
            why = f"not run: {cell.not_run}"
            if cell.not_run and why not in (reasons := found.setdefault(engine, [])):
                reasons.append(why)
        return {e: "; ".join([*filter(None, [versions.get(e)]), *why]) for e, why in found.items()}


def _pairs(kind: str, engine: str, ours: Cell, other: Cell) -> Sequence[tuple[float, float]]:
    if engine == ONE:
        both = sorted(ours.outcomes.keys() & other.outcomes.keys())
        read = figures.prompt_tokens_read
        return [(read(ours.outcomes[i]), read(other.outcomes[i])) for i in both]
    found = []
    for round_ in sorted((ours.outcomes | ours.goodput).keys()):
        mine, theirs = ours.figure(kind, round_), other.figure(kind, round_)
        if mine is not None and theirs is not None:
            found.append((mine, theirs))
    return found
