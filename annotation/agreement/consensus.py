"""What the truth and each annotator's accuracy are likely to be, from votes alone: one-coin Dawid–Skene EM.

An annotator of accuracy p names the true label with p and each of the K − 1 others with (1 − p) / (K − 1).
E: posterior of each item's label; M: p = (right votes expected + a) / (votes + a + b), Beta(a, b) being the prior.

Source: A. P. Dawid, A. M. Skene, J. R. Stat. Soc. C 28 (1979) 20–28, with one parameter an annotator instead of a
confusion matrix: a matrix needs many votes of each, which a new annotator does not have.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PRIOR = (4.0, 1.0)
_FLOOR = 1e-6


@dataclass(frozen=True)
class Vote:
    item: str
    annotator: str
    label: Hashable


@dataclass(frozen=True)
class Peers:
    """
    Attributes:
        votes: on items that others voted on too.
        right: of these, expected to be right, judged by the others' votes alone: nobody vouches for himself.
    """

    votes: int
    right: float


def consensus(votes: Sequence[Vote], *, rounds: int = 100, tolerance: float = 1e-6) -> dict[str, Peers]:
    """By annotator. Items with one vote say nothing of anybody and are left out; order does not matter.

    Raises:
        ValueError: an annotator voted twice on an item.
    """
    if len({(vote.item, vote.annotator) for vote in votes}) < len(votes):
        raise ValueError("one vote an item and annotator")
    size: dict[str, int] = {}
    for vote in votes:
        size[vote.item] = size.get(vote.item, 0) + 1
    kept = sorted(
        (vote for vote in votes if size[vote.item] > 1), key=lambda vote: (vote.item, vote.annotator)
    )
    if not kept:
        return {}
    _, item = np.unique([vote.item for vote in kept], return_inverse=True)
    names, annotator = np.unique([vote.annotator for vote in kept], return_inverse=True)
    labels = {label: place for place, label in enumerate(sorted({vote.label for vote in kept}, key=repr))}
    label = np.array([labels[vote.label] for vote in kept])
    classes = max(len(labels), 2)
    items = int(item.max()) + 1
    count = np.bincount(annotator, minlength=len(names)).astype(np.float64)
    accuracy = np.full(len(names), PRIOR[0] / sum(PRIOR))
    right = count * accuracy
    for _ in range(rounds):
        scores = _scores(accuracy[annotator], item, label, items, classes)
        posterior = _softmax(scores)[item, label]
        right = np.bincount(annotator, weights=posterior, minlength=len(names))
        new = (right + PRIOR[0]) / (count + sum(PRIOR))
        moved, accuracy = float(np.abs(new - accuracy).max()), new
        if moved < tolerance:
            break
    scores = _scores(accuracy[annotator], item, label, items, classes)
    others = scores[item]
    others[np.arange(len(kept)), label] -= _weight(accuracy[annotator], classes)
    fair = _softmax(others)[np.arange(len(kept)), label]
    right = np.bincount(annotator, weights=fair, minlength=len(names))
    return {str(name): Peers(int(count[i]), float(right[i])) for i, name in enumerate(names)}


def _weight(accuracy: Array, classes: int) -> Array:
    """Log-odds that a vote adds to its label over each other one."""
    p = np.clip(accuracy, _FLOOR, 1 - _FLOOR)
    return np.asarray(np.log(p) - np.log((1 - p) / (classes - 1)))


def _scores(
    accuracy: Array, item: NDArray[np.intp], label: NDArray[np.int64], items: int, classes: int
) -> Array:
    """Log-posterior of each item's labels up to a constant, [items, classes]; all labels are equally likely before."""
    table = np.zeros((items, classes))
    np.add.at(table, (item, label), _weight(accuracy, classes))
    return table


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))
