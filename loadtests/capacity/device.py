"""What the simulator knows of a machine and of what is asked of it, read from a file that `calibrate` writes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from loadtests.samples import Sample

DEVICES = Path(__file__).parent / "devices"


@dataclass(frozen=True)
class Work:
    """What one answer of a kind needs.

    Attributes:
        kind: of `loadtests.scenarios.asks`.
        films: pictures to tokenize; those that were asked about before are not.
        prompt_tokens: to be read, cached ones left out.
        text_tokens: to be drawn one after another.
        pictures: to be drawn and decoded.
    """

    kind: str
    films: int
    prompt_tokens: int
    text_tokens: int
    pictures: int

    @classmethod
    def of(cls, sample: Sample) -> Work:
        """What an answer needed. A drawing's tokens are its ends alone, of which nobody sees any."""
        tokens = 0 if sample.kind == "drawing" else sample.tokens
        return cls(sample.kind, sample.new_films, sample.prompt_tokens, tokens, sample.pictures)


@dataclass(frozen=True)
class Device:
    """One replica of each service on one device. Times in seconds.

    Attributes:
        device: its name, as a person would say it.
        conditions: when and how it was measured, and what else ran.
        gpus: of one replica of the language model; 0 = none.
        step_base_s, step_row_s: a step of n rows takes base + n · row.
        prefill_token_s: a step takes so much longer for each prompt token that it reads.
        overheads: of observed requests, the seconds outside of all services' own work (proxy, gateway, store, the way
            between them) before the first token and after it; a request's are drawn from these.
        tokenize_s, decode_s: one picture.
        max_batch: rows of one step.
        picture_tokens: codes of a picture.
        picture_rows: rows of a picture being drawn: 2 with guidance on the text.
        start_s: from the decision to start a replica to its first answer.
        cores: on a machine where all services share so many; None = each has its own.
        works: observed answers, from which the simulator draws.
    """

    device: str
    conditions: str
    gpus: int
    step_base_s: float
    step_row_s: float
    prefill_token_s: float
    overheads: tuple[tuple[float, float], ...]
    tokenize_s: float
    decode_s: float
    max_batch: int
    picture_tokens: int
    picture_rows: int
    start_s: float
    cores: int | None
    works: tuple[Work, ...]

    def step_s(self, rows: int) -> float:
        """A step of so many rows."""
        return self.step_base_s + self.step_row_s * rows

    def of_kind(self, kind: str) -> list[Work]:
        return [work for work in self.works if work.kind == kind]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def read(path: Path) -> Device:
    """Raises: ValueError: names what is wrong with the file."""
    try:
        raw: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read as JSON: {type(error).__name__}") from None
    names = {each.name for each in fields(Device)}
    if not isinstance(raw, dict) or set(raw) != names:
        odd = sorted(names ^ set(raw)) if isinstance(raw, dict) else sorted(names)
        raise ValueError(f"{path.name} must have the fields of a device, no others; see {', '.join(odd)}")
    for name, value in raw.items():
        if name.endswith("_s") and not (isinstance(value, int | float) and 0 <= value < 86400):
            raise ValueError(f"{path.name}: {name} must be seconds, 0 to 86400")
    for name in ("max_batch", "picture_tokens", "picture_rows"):
        if not (isinstance(raw[name], int) and raw[name] >= 1):
            raise ValueError(f"{path.name}: {name} must be a whole number, at least 1")
    if raw["cores"] is not None and not (isinstance(raw["cores"], int) and raw["cores"] >= 1):
        raise ValueError(f"{path.name}: cores must be a whole number, at least 1, or null")
    if not (isinstance(raw["gpus"], int) and raw["gpus"] >= 0):
        raise ValueError(f"{path.name}: gpus must be a whole number, at least 0")
    try:
        works = tuple(Work(**work) for work in raw["works"])
    except TypeError:
        raise ValueError(f"{path.name}: works must be a list of works") from None
    overheads = raw["overheads"]
    if not isinstance(overheads, list) or not all(map(_pair, overheads)):
        raise ValueError(f"{path.name}: overheads must be a list of pairs of seconds, 0 to 86400")
    if not works or not overheads:
        raise ValueError(f"{path.name}: works and overheads must not be empty")
    return Device(**{**raw, "works": works, "overheads": tuple(map(tuple, overheads))})


def _pair(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(each, int | float) and 0 <= each < 86400 for each in value)
    )
