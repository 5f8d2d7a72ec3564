"""What a run keeps on disk, so that it goes on after any interruption with nothing done twice.

    RUN/run.json        what is measured: data, model, settings
    RUN/answers.jsonl   one line an answer: task, its version, example, text, pictures, or the error
    RUN/scores.jsonl    one line a score: task, its version, example, scorer, its version, value, or the failure
    RUN/pictures/       drawn pictures by content
    RUN/results.json    the table, and report.html the page

Lines are only ever appended; a line torn by a crash is cut off when the run is opened again. A newer version of a task
or a scorer retires the older lines without deleting them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from evaluation.suite.example import Answer, Score
from services.errors import ConfigurationError, InvalidInput

FSYNC_EVERY_S = 1.0
# Errors that say nothing about the model's answer; such examples are asked again when the run is resumed.
TRANSIENT = frozenset({"unavailable", "overloaded", "rate_limited", "deadline_exceeded", "cancelled"})


@dataclass(frozen=True)
class AnswerRecord:
    """One example's answer. `pictures` are names below RUN/pictures; `error` has a code and a message."""

    task: str
    task_version: int
    id: str
    place: str
    text: str = ""
    pictures: tuple[str, ...] = ()
    confidence: float | None = None
    model: str = ""
    digest: str = ""
    finish: str = ""
    latency_ms: float = 0.0
    error: dict[str, str] | None = None
    topic: str = ""
    group: str = ""


@dataclass(frozen=True)
class ScoreRecord:
    """One example's value under one scorer; None with the failure's name where there is none."""

    task: str
    task_version: int
    id: str
    scorer: str
    scorer_version: int
    value: float | None
    failure: str = ""
    detail: str = ""
    note: str = ""


class Lines:
    """A JSONL file that is appended to. Each line is handed to the system at once and synced once a second.

    A killed process loses nothing of what was appended, a machine without power at most a second's lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._synced = time.monotonic()
        cut_torn_line(path)
        self._file: IO[bytes] = path.open("ab", buffering=0)

    def append(self, record: AnswerRecord | ScoreRecord) -> None:
        self._file.write(json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n")
        if time.monotonic() - self._synced > FSYNC_EVERY_S:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def cut_torn_line(path: Path) -> None:
    """Remove what follows the last line end."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        position = end
        while position:
            start = max(0, position - 65536)
            file.seek(start)
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                position = start + found + 1
                break
            position = start
        if position != end:
            file.truncate(position)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file. Raises: InvalidInput naming the line that is none."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # being written, or torn
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError
            except ValueError:
                raise InvalidInput("is no record of a run", field=f"{path.name}:{number}") from None
            yield record


def answers_of(run: Path) -> Iterator[AnswerRecord]:
    for number, record in enumerate(read_lines(run / "answers.jsonl"), 1):
        try:
            yield AnswerRecord(**{**record, "pictures": tuple(record.get("pictures", ()))})
        except TypeError:
            raise InvalidInput("is no answer's record", field=f"answers.jsonl:{number}") from None


def scores_of(run: Path) -> Iterator[ScoreRecord]:
    for number, record in enumerate(read_lines(run / "scores.jsonl"), 1):
        try:
            yield ScoreRecord(**record)
        except TypeError:
            raise InvalidInput("is no score's record", field=f"scores.jsonl:{number}") from None


class Run:
    """A run's folder, open for one process at a time.

    Attributes:
        answers: by (task, version, example); errors that pass are left out, so that they are asked again.
        scores: by (task, version, example, scorer, version), those of failures of a moment left out.

    Raises:
        InvalidInput: the folder belongs to another run (other data or model), or another process has it open.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], retry_failed: bool = False) -> None:
        self.folder = folder
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InvalidInput(f"another process is working in {folder}", field="--run") from None
        try:
            self.facts = self._facts(identity)
            self._answer_lines = Lines(folder / "answers.jsonl")
            self._score_lines = Lines(folder / "scores.jsonl")
            self.answers = {
                (a.task, a.task_version, a.id): a
                for a in answers_of(folder)
                if a.error is None or not (retry_failed or a.error["code"] in TRANSIENT)
            }
            self.scores = {
                (s.task, s.task_version, s.id, s.scorer, s.scorer_version): s
                for s in scores_of(folder)
                if not s.failure.endswith("_unreachable") and not (retry_failed and s.failure)
            }
        except BaseException:
            self._lock.close()
            raise

    def _facts(self, identity: dict[str, Any]) -> dict[str, Any]:
        path = self.folder / "run.json"
        if not path.exists():
            facts = {**identity, "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
            write_json(path, facts)
            return facts
        facts = read_json(path)
        for name in ("data", "model"):
            if facts.get(name) != identity[name]:
                raise InvalidInput(
                    f"the run in {self.folder} is about another {name}; give a folder of its own",
                    field="--run",
                )
        return {**facts, **{key: value for key, value in identity.items() if key not in facts}}

    def note_model(self, answer: Answer) -> None:
        """Remember which weights answer. Raises: ConfigurationError where they change within a run."""
        weights = {"id": answer.model, "digest": answer.digest}
        if "weights" not in self.facts:
            self.facts["weights"] = weights
            write_json(self.folder / "run.json", self.facts)
        elif self.facts["weights"] != weights:
            raise ConfigurationError(
                f"the run was begun on {self.facts['weights']} and {weights} answers now; give a run of its own"
            )

    def add_answer(self, record: AnswerRecord) -> None:
        self.answers[record.task, record.task_version, record.id] = record
        self._answer_lines.append(record)

    def add_score(
        self, task: str, task_version: int, id: str, scorer: str, scorer_version: int, score: Score
    ) -> None:
        record = ScoreRecord(
            task, task_version, id, scorer, scorer_version, score.value, score.failure, score.detail[:300],
            score.note[:2000],
        )  # fmt: skip
        self.scores[task, task_version, id, scorer, scorer_version] = record
        self._score_lines.append(record)

    def keep_picture(self, data: bytes) -> str:
        """Write a picture by its content's digest; returns its name."""
        name = hashlib.sha256(data).hexdigest()[:32] + (".png" if data[:4] == b"\x89PNG" else ".img")
        path = self.folder / "pictures" / name
        if not path.exists():
            part = path.with_suffix(".part")
            part.write_bytes(data)
            part.replace(path)
        return name

    def answer(self, record: AnswerRecord) -> Answer:
        """A kept answer as the model gave it."""
        pictures = tuple(
            (self.folder / "pictures" / Path(name).name).read_bytes() for name in record.pictures
        )
        return Answer(
            record.text, pictures, record.confidence, record.model, record.digest, record.finish,
            record.latency_ms,
        )  # fmt: skip

    def close(self) -> None:
        self._answer_lines.close()
        self._score_lines.close()
        self._lock.close()


def write_json(path: Path, value: Any) -> None:
    """Replace a file by a JSON document, or leave it as it was."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Raises: InvalidInput where there is no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("no object")
        return value
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot be read: {error}", field=path.name) from None
