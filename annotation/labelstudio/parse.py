"""Annotations as Label Studio has them, to verdicts. Whatever people or other programs put there is no reason to fail:
each oddity becomes a `Problem` with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from annotation.core import Annotation, Decision, Kind, Severity, Verdict
from annotation.labelstudio import regions, sentences
from annotation.labelstudio.render import letters
from annotation.labelstudio.templates import Template
from services.errors import InvalidInput


class Oddity(StrEnum):
    """What is wrong with a task or an annotation. Those of `LOST` leave no annotation."""

    FOREIGN = "not our task"
    SKIPPED = "skipped by the expert"
    DAMAGED = "not as Label Studio writes it"
    INCOMPLETE = "lacks a required answer"
    UNKNOWN_VALUE = "holds a value that the configuration does not have"
    BAD_REGION = "has a region outside or without size"
    UNKNOWN_CONTROL = "answers a control that the configuration does not have"
    UNLABELLED = "has a region without a label"
    NO_REASON = "says nothing about the error or its severity"
    UNCHANGED = "an edit that changes nothing"


LOST = frozenset(
    {
        Oddity.FOREIGN,
        Oddity.SKIPPED,
        Oddity.DAMAGED,
        Oddity.INCOMPLETE,
        Oddity.UNKNOWN_VALUE,
        Oddity.BAD_REGION,
    }
)


@dataclass(frozen=True)
class Problem:
    """`annotation` is 0 for the task itself; `control` names the control, if it is about one."""

    oddity: Oddity
    task: int
    annotation: int = 0
    control: str = ""


@dataclass
class Parsed:
    """What a task's annotations come to."""

    item_id: str = ""
    annotations: list[Annotation] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class _Refused(Exception):
    def __init__(self, oddity: Oddity, control: str = "") -> None:
        super().__init__(oddity.value)
        self.oddity, self.control = oddity, control


def item_of(task: Mapping[str, Any], kind: Kind) -> str:
    """The id of the item that a task is about; empty for a task that is not ours."""
    meta = task.get("meta")
    if not isinstance(meta, dict) or meta.get("kind") != kind.value:
        return ""
    item = meta.get("item")
    return item if isinstance(item, str) else ""


def parse(task: Mapping[str, Any], template: Template, project: int) -> Parsed:
    """Everything in a task, as the API gives it with all fields."""
    number = _int(task.get("id"))
    found = Parsed(item_of(task, template.kind))
    if not found.item_id:
        found.problems.append(Problem(Oddity.FOREIGN, number))
        return found
    for annotation in task.get("annotations") or ():
        if not isinstance(annotation, dict):
            found.problems.append(Problem(Oddity.DAMAGED, number))
            continue
        reader = _Reader(task, annotation, template)
        try:
            found.annotations.append(reader.annotation(found.item_id, project))
        except _Refused as refused:
            reader.note(refused.oddity, refused.control)
        found.problems += reader.problems
    return found


class _Reader:
    """One annotation."""

    def __init__(self, task: Mapping[str, Any], annotation: Mapping[str, Any], template: Template) -> None:
        self.template, self.raw = template, annotation
        self.meta: Mapping[str, Any] = task["meta"]
        self.data: Mapping[str, Any] = task["data"] if isinstance(task.get("data"), dict) else {}
        self.task, self.id = _int(task.get("id")), _int(annotation.get("id"))
        self.problems: list[Problem] = []
        self.values: dict[str, Mapping[str, Any]] = {}
        self.marks: list[Mapping[str, Any]] = []

    def note(self, oddity: Oddity, control: str = "") -> None:
        self.problems.append(Problem(oddity, self.task, self.id, control))

    def annotation(self, item_id: str, project: int) -> Annotation:
        if self.raw.get("was_cancelled"):
            raise _Refused(Oddity.SKIPPED)
        author = self.raw.get("completed_by")
        author = author.get("id") if isinstance(author, dict) else author
        created, updated = _time(self.raw.get("created_at")), _time(self.raw.get("updated_at"))
        if not self.id or not _int(author) or created is None or updated is None:
            raise _Refused(Oddity.DAMAGED)
        self._sort()
        seconds = self.raw.get("lead_time")
        return Annotation(
            id=f"{project}:{self.id}",
            item_id=item_id,
            kind=self.template.kind,
            annotator=str(author),
            verdict=self._verdict(),
            created_at=created,
            updated_at=updated,
            seconds=max(0.0, float(seconds)) if isinstance(seconds, int | float) else 0.0,
        )

    def _sort(self) -> None:
        """Results by control; those that belong to a region apart."""
        results = self.raw.get("result")
        if not isinstance(results, list):
            raise _Refused(Oddity.DAMAGED)
        for result in results:
            value = result.get("value") if isinstance(result, dict) else None
            if not isinstance(value, dict):
                raise _Refused(Oddity.DAMAGED)
            name = result.get("from_name")
            control = self.template.controls.get(name) if isinstance(name, str) else None
            if control is None:
                # A control that somebody added by hand: what we asked is answered all the same.
                self.note(Oddity.UNKNOWN_CONTROL)
            elif control.type in ("labels", "rectangle", "brush"):
                self.marks.append(result)
            else:
                self.values[name] = value

    def _verdict(self) -> Verdict:
        kind, comment = self.template.kind, "\n".join(self._texts("comment"))
        if kind is Kind.PREFERENCE:
            return Verdict(ranking=self._ranking(), comment=comment)
        decision = Decision(self._one("decision", required=True))
        wrong = decision is not Decision.ACCEPT
        # What was filled in before the expert changed his mind stays in hidden controls: it does not count.
        error = self._one("error") if wrong else ""
        severity = self._one("severity") if wrong else Severity.NONE.value
        if wrong and not (error and severity):
            self.note(Oddity.NO_REASON)
        return Verdict(
            decision=decision,
            text=self._text() if decision is Decision.EDIT else None,
            error=error,
            severity=Severity(severity or Severity.NONE.value),
            missing=self._chosen("missing") if wrong else (),
            realism=self._stars("realism"),
            agreement=self._stars("agreement"),
            regions=self._regions(),
            comment=comment,
        )

    def _chosen(self, name: str) -> tuple[str, ...]:
        chosen = self.values.get(name, {}).get("choices", [])
        control = self.template.controls.get(name)
        if not isinstance(chosen, list) or not all(isinstance(choice, str) for choice in chosen):
            raise _Refused(Oddity.DAMAGED, name)
        if chosen and (control is None or not control.values.issuperset(chosen)):
            raise _Refused(Oddity.UNKNOWN_VALUE, name)
        return tuple(dict.fromkeys(chosen))

    def _one(self, name: str, required: bool = False) -> str:
        chosen = self._chosen(name)
        if len(chosen) > 1:
            raise _Refused(Oddity.DAMAGED, name)
        if required and not chosen:
            raise _Refused(Oddity.INCOMPLETE, name)
        return chosen[0] if chosen else ""

    def _texts(self, name: str) -> Sequence[str]:
        texts = self.values.get(name, {}).get("text", [])
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise _Refused(Oddity.DAMAGED, name)
        return [text.strip() for text in texts if text.strip()]

    def _text(self) -> str:
        texts, original = self._texts("text"), self.data.get("text")
        original = original.strip() if isinstance(original, str) else ""
        if not texts:
            raise _Refused(Oddity.INCOMPLETE, "text")
        text = sentences.join(texts, original) if self.template.kind is Kind.REPORT else "\n".join(texts)
        if text == original:
            self.note(Oddity.UNCHANGED, "text")
        return text

    def _stars(self, name: str) -> int | None:
        if name not in self.template.controls:
            return None
        stars = self.values.get(name, {}).get("rating")
        if stars is None:
            raise _Refused(Oddity.INCOMPLETE, name)
        if isinstance(stars, bool) or stars not in range(1, 6):
            raise _Refused(Oddity.UNKNOWN_VALUE, name)
        return int(stars)

    def _ranking(self) -> tuple[int, ...]:
        names = letters(_int(self.meta.get("alternatives")))
        if len(names) == 2:
            selected = self.values.get("pair", {}).get("selected")
            if selected not in ("left", "right"):
                raise _Refused(Oddity.INCOMPLETE, "pair")
            return (0, 1) if selected == "left" else (1, 0)
        columns = self.values.get("rank", {}).get("ranker")
        order = columns.get("rank") if isinstance(columns, dict) else columns
        if order is None or self._one("ordered") != "yes":
            raise _Refused(Oddity.INCOMPLETE, "rank")
        if not isinstance(order, list) or sorted(map(str, order)) != sorted(names):
            raise _Refused(Oddity.DAMAGED, "rank")
        return tuple(names.index(letter) for letter in order)

    def _regions(self) -> tuple[regions.Region, ...]:
        pictures = self.meta.get("pictures")
        if not self.marks:
            return ()
        control = self.template.controls["label"]
        try:
            found = regions.parse(self.marks, pictures if isinstance(pictures, list) else [])
        except InvalidInput:
            raise _Refused(Oddity.BAD_REGION) from None
        for region in found:
            if not region.label:
                self.note(Oddity.UNLABELLED, "label")
            elif region.label not in control.values:
                raise _Refused(Oddity.UNKNOWN_VALUE, "label")
        return tuple(region for region in found if region.label)


def _int(value: Any) -> int:
    """A positive number, or 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _time(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
