"""Judged items → an immutable version of instruction data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from annotation.core import Judgement
from annotation.deid import check_text
from annotation.loop.context import Loop
from annotation.loop.faults import point
from annotation.loop.result import Result
from annotation.store import State, What
from services.errors import InternalError
from services.interactions.schema import interactions

if TYPE_CHECKING:
    from annotation.dataset.decontaminate import EvaluationSets

_PAGE = 200


def run(loop: Loop, *, now: bool = False) -> Result:
    """Build where enough items were judged since the last version.

    Args:
        now: build whatever there is.
    """
    waiting = sum(loop.store.figures.counts().get(State.JUDGED, {}).values())
    if not waiting or (waiting < loop.settings.dataset.min_judged and not now):
        return Result(left=waiting)
    # Here: it brings torch and scipy, and a controller that builds nothing yet starts without them.
    from annotation.dataset.build import Build

    # What lost its consent meanwhile must be out before; the build refuses as a whole otherwise.
    loop.store.retention.sweep()
    result = Result()
    contents: list[tuple[str, int]] = []
    previous = next(iter(loop.store.versions.all(What.DATA, 1)), None)
    build = Build(
        loop.datasets,
        consent=lambda interaction: _consents(loop, interaction),
        check_text=lambda text: [category.value for category in check_text(text)],
        policy=loop.settings.dataset.policy,
        fetch=lambda sha256: _picture(loop, sha256),
        evaluation=evaluation_sets(loop),
        parents=[previous.id] if previous is not None else [],
    )
    version = build.run(_judgements(loop, contents, result))
    point("build.built")
    changed = loop.store.versions.built(
        version.digest,
        contents,
        path=str(version.path),
        parent=previous.id if previous is not None and previous.id != version.digest else None,
        scores={"counts": version.manifest["counts"], "dropped": version.manifest["dropped"]},
    )
    _built_again(loop, contents)
    point("build.recorded")
    result.done = len(contents) - len(changed)
    result.said |= {"version": version.id, "counts": version.manifest["counts"]}
    return result


def _built_again(loop: Loop, contents: list[tuple[str, int]]) -> None:
    """Items whose verdict changed and changed back are in a version that was recorded before."""
    with loop.store.ledger.change() as change:
        for key, revision in sorted(contents):
            row = change.lock(key)
            if row["revision"] == revision and State(row["state"]) is State.JUDGED:
                change.move(row, State.BUILT)


def _judgements(loop: Loop, contents: list[tuple[str, int]], result: Result) -> Iterator[Judgement]:
    """All that stands. A verdict in which an identifier is found stays judged: a person must mend it in Label Studio."""
    after = None
    while page := loop.store.judgements.standing(after, _PAGE):
        for entry, judgement in page:
            if any(check_text(text) for text in texts_of(judgement)):
                result.failed["identifier"] += 1
                continue
            contents.append((entry.key, entry.revision))
            yield judgement
        after = page[-1][0]


def texts_of(judgement: Judgement) -> list[str]:
    """What experts wrote that may become data; the item's own texts are de-identified."""
    verdict = judgement.verdict
    return [*([verdict.text] if verdict.text else []), *verdict.missing, *(r.label for r in verdict.regions)]


def evaluation_sets(loop: Loop) -> EvaluationSets | None:
    """What must not be trained on: all that the settings evaluate on."""
    if not loop.settings.evaluation:
        return None
    from annotation.dataset.decontaminate import EvaluationSets
    from annotation.loop.steps.evaluate import data_of

    sets = EvaluationSets(loop.settings.dataset.ngram)
    for each in loop.settings.evaluation:
        sets.add_data(Path(data_of(loop, each)))
    return sets


def _consents(loop: Loop, interaction: str) -> bool:
    with loop.store.ledger.read() as connection:
        found = connection.scalar(
            select(interactions.c.consent_training).where(
                interactions.c.id == interaction, interactions.c.expires_at > loop.clock()
            )
        )
    return bool(found)


def _picture(loop: Loop, sha256: str) -> bytes | None:
    try:
        return loop.store.items.shelf.files.read(sha256)
    except InternalError:
        return None  # missing or damaged: the build says so of its item, and goes on
