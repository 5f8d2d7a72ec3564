"""Verdicts that agree, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median_low

from annotation.agreement.text import normalised
from annotation.core import Annotation, Kind, Verdict
from annotation.judge.policy import rank


def merged(kind: Kind, supporters: Sequence[Annotation], weights: Sequence[float]) -> Verdict:
    """One verdict of those that agree; their order does not matter.

    Text, regions and ranking are those of the most reliable supporter, not a mixture that nobody wrote; of equals, of
    the first to annotate. Severity is the worst (who saw more harm may have seen what others did not); missing
    findings are the same up to wording, which is the chosen one's; ratings are the lower median; the error category
    is the one of most weight. Comments stay with their annotations.
    """
    order = sorted(
        zip(supporters, weights, strict=True), key=lambda pair: (-pair[1], pair[0].created_at, pair[0].id)
    )
    best = order[0][0].verdict
    verdicts = [annotation.verdict for annotation, _ in order]
    missing = {normalised(name): name for verdict in reversed(verdicts) for name in verdict.missing}
    return replace(
        best,
        error=_heaviest([(annotation.verdict.error, weight) for annotation, weight in order]),
        severity=max((verdict.severity for verdict in verdicts), key=rank),
        missing=tuple(missing[key] for key in sorted(missing)) if kind is Kind.REPORT else best.missing,
        realism=_middle([verdict.realism for verdict in verdicts]),
        agreement=_middle([verdict.agreement for verdict in verdicts]),
        comment="",
    )


def _middle(ratings: Sequence[int | None]) -> int | None:
    given = [rating for rating in ratings if rating is not None]
    return median_low(given) if given else None


def _heaviest(errors: Sequence[tuple[str, float]]) -> str:
    totals: dict[str, float] = {}
    for error, weight in errors:
        if error:
            totals[error] = totals.get(error, 0.0) + weight
    return min(totals, key=lambda error: (-totals[error], error)) if totals else ""
