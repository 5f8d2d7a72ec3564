"""Judgements into a version. Memory does not grow with them: what waits, waits in a SQLite file of the build."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotation.core import Judgement, Reason
from annotation.dataset.check import CheckText
from annotation.dataset.decontaminate import EvaluationSets
from annotation.dataset.dedupe import dedupe, telling
from annotation.dataset.pictures import Fetch, Intake
from annotation.dataset.policy import Policy
from annotation.dataset.repeats import drop_repeats
from annotation.dataset.rows import make
from annotation.dataset.split import Groups
from annotation.dataset.staging import Staged, Staging
from annotation.dataset.text import Refused, question
from annotation.dataset.tokenizer import Tokenizer
from annotation.dataset.versions import Version, load
from annotation.dataset.workspace import publish, workspace
from annotation.dataset.write import Writer
from services.errors import InternalError, InvalidInput, PermissionDenied
from services.tokenizer.limits import Limits

Progress = Callable[[str, int, int | None], None]
"""Told the stage, how much of it is done, and of how much where that is known."""

STAGES = ("read", "decontaminate", "deduplicate", "split", "write", "publish", "published")
_LIMITS = Limits(16 << 20, 50_000_000)  # as the tokenizer service's own


@dataclass
class Build:
    """How a data set is built.

    Attributes:
        root: folder of the versions.
        consent: whether an interaction may be used as training data; asked of every one.
        check_text: categories of the identifiers that it finds in a text; asked of every text that would be written.
        fetch: bytes of pictures that judgements name by digest alone.
        evaluation: what may not be trained on.
        parents: digests of the versions that this one follows.
        tokenizer: fills `tokens`; without one training does.
        limits: of a picture; those that training reads with.
    """

    root: Path
    consent: Callable[[str], bool]
    check_text: CheckText
    policy: Policy = field(default_factory=Policy)
    fetch: Fetch | None = None
    evaluation: EvaluationSets | None = None
    parents: Sequence[str] = ()
    tokenizer: Tokenizer | None = None
    limits: Limits = _LIMITS
    progress: Progress = lambda stage, done, of: None

    def run(self, judgements: Iterable[Judgement]) -> Version:
        """The version of these judgements; the one that is there already where its content is the same.

        Raises:
            PermissionDenied: an interaction without consent is among them. Nothing is written.
            InvalidInput: a text seems to identify somebody, or a judgement is none. Nothing is written.
            Overloaded: another build of this root is at work.
        """
        with workspace(self.root) as folder:
            version = folder / "version"
            version.mkdir()
            staging = Staging(folder / "staging.sqlite3")
            try:
                intake = Intake(version, staging, self.limits, self.fetch)
                self._read(judgements, staging, intake)
                self._decontaminate(staging, intake)
                self.progress("deduplicate", 0, None)
                dedupe(staging, self.policy.similar)
                drop_repeats(staging)
                self._split(staging)
                self.progress("write", 0, None)
                made_at = datetime.now(UTC).isoformat(timespec="seconds")
                writer = Writer(version, staging, self.policy, self.check_text, self.tokenizer)
                digest = writer.write(
                    made_at, self.parents, self.evaluation.sources if self.evaluation else [], self.progress
                )
            finally:
                staging.close()
            target = self.root / digest[:12]
            self.progress("publish", 0, None)
            if not target.exists():
                publish(version, target)
            self.progress("published", 1, 1)
        there = load(self.root, digest[:12])
        if there.digest != digest:
            raise InternalError(f"two versions begin with {digest[:12]}")
        return there

    def _read(self, judgements: Iterable[Judgement], staging: Staging, intake: Intake) -> None:
        refused: set[str] = set()
        for done, judgement in enumerate(judgements, 1):
            item = judgement.item
            if item.reason is Reason.GOLD and not self.policy.gold:
                staging.drop(item.id, item.kind.value, "judgement", "gold")
            elif item.reason is not Reason.GOLD and not self.consent(item.id):
                refused.add(item.id)
            else:
                self._stage(judgement, staging, intake)
            if done % 100 == 0:
                self.progress("read", done, None)
        if refused:
            some = ", ".join(sorted(refused)[:5])
            raise PermissionDenied(
                f"{len(refused)} interactions have no consent to be training data, {some} among them",
                field="judgements",
            )

    def _stage(self, judgement: Judgement, staging: Staging, intake: Intake) -> None:
        item, verdict = judgement.item, judgement.verdict
        if judgement.made_at.tzinfo is None:
            raise InvalidInput("must have a time zone", field=f"{item.id}.made_at")
        try:
            taken = {picture: intake.take(picture) for picture in item.pictures}
            made = make(judgement, lambda picture: taken[picture].name)
        except Refused as refused:
            staging.drop(item.id, item.kind.value, "judgement", refused.reason)
            return
        pictures = sorted({one.pixels for one in taken.values()})
        asked = question(item.dialogue).encode(errors="replace").decode()
        texts = [part for turn in item.dialogue for part in turn.parts if isinstance(part, str)]
        answers = [
            part for parts in (item.answer, *item.alternatives) for part in parts if isinstance(part, str)
        ]
        staged = Staged(
            key=f"{item.id} {item.kind.value}",
            interaction=item.id,
            kind=item.kind.value,
            rank="",
            question=asked,
            texts=[*texts, *answers, *([verdict.text] if verdict.text else [])],
            pictures=pictures,
            patient=item.patient.encode(errors="replace").decode(),
            facts=_facts(judgement),
            records=[(file.value, record) for file, record in made.records],
            none=[*made.none],
            alike=f"{item.kind.value} {' '.join(pictures)} {telling(asked)}",
        )
        staging.add(staged.ranked(judgement.made_at))

    def _decontaminate(self, staging: Staging, intake: Intake) -> None:
        if self.evaluation is None:
            return
        for done, staged in enumerate(staging.each(), 1):
            shown = [(pixels, intake.print_of(pixels)) for pixels in staged.pictures]
            if (found := self.evaluation.find(staged.texts, shown)) is not None:
                staging.reject(staged, found.reason, found.because)
            if done % 100 == 0:
                self.progress("decontaminate", done, None)

    def _split(self, staging: Staging) -> None:
        self.progress("split", 0, None)
        groups = Groups(self.policy.salt)
        for staged in staging.each():
            groups.join(staged.patient, staged.pictures, staged.interaction)
        share = self.policy.validation_share
        staging.hold(
            staged.key
            for staged in staging.each()
            if groups.held(staged.patient, staged.pictures, staged.interaction, share)
        )


def _facts(judgement: Judgement) -> dict[str, Any]:
    """What the card counts."""
    item, verdict = judgement.item, judgement.verdict
    return {
        "kind": item.kind.value,
        "task": item.task,
        "modality": item.modality or "unknown",
        "sent_because": item.reason.value,
        "decision": verdict.decision.value if verdict.decision else "rank",
        "severity": verdict.severity.value,
        "model": f"{item.model_id}@{item.model_digest[:12]}",
        "agreement": judgement.agreement,
        "adjudicated": judgement.adjudicated,
        "experts": len({annotation.annotator for annotation in judgement.annotations}),
    }
