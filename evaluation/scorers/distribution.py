"""Distances between the drawn and the true pictures' features: FID (Heusel 2017) and KID (Bińkowski 2018)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.scorers.core import Case, CorpusScorer, Estimate
from evaluation.scorers.pixels import Features

Array = NDArray[np.float64]
_FOLDS = 10


def frechet(drawn: Array, true: Array) -> float:
    """|m₁−m₂|² + tr(C₁ + C₂ − 2 (C₁C₂)^½), covariances with n−1; [n, d] and [m, d], n, m ≥ 2."""
    gap = drawn.mean(0) - true.mean(0)
    first, second = np.atleast_2d(np.cov(drawn.T)), np.atleast_2d(np.cov(true.T))
    # tr (C₁C₂)^½ from the symmetric C₁^½ C₂ C₁^½, which has the same eigenvalues.
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2 * cross)


def kernel_distance(drawn: Array, true: Array) -> float:
    """Unbiased squared MMD under (x·y / d + 1)³; may be below 0."""
    n, m, d = len(drawn), len(true), drawn.shape[1]

    def kernel(a: Array, b: Array) -> Array:
        return np.asarray((a @ b.T / d + 1) ** 3)

    xx, yy, xy = kernel(drawn, drawn), kernel(true, true), kernel(drawn, true)
    return float(
        (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1)) - 2 * xy.mean()
    )


def jackknife(distance: Callable[[Array, Array], float], drawn: Array, true: Array) -> float | None:
    """Standard error from leaving out one of up to ten folds of pairs at a time."""
    folds = min(_FOLDS, len(drawn) // 4)
    if folds < 2:
        return None
    fold = np.arange(len(drawn)) % folds
    values = np.array([distance(drawn[fold != k], true[fold != k]) for k in range(folds)])
    return float(np.sqrt((folds - 1) / folds * ((values - values.mean()) ** 2).sum()))


class _Distance(CorpusScorer):
    def __init__(self, features: Features) -> None:
        self._features = features

    def missing(self) -> str | None:
        return self._features.missing()

    @abstractmethod
    def distance(self, drawn: Array, true: Array) -> float: ...

    def estimate(self, cases: Sequence[Case]) -> Estimate:
        pairs = [(case.drawn, case.true) for case in cases if case.drawn and case.true]
        failed = len(cases) - len(pairs)
        if len(pairs) < 2:
            return Estimate(None, 0, failed, not_run="fewer than two pairs of a drawn and a true picture")
        drawn = self._features.of([first for first, _ in pairs])
        true = self._features.of([second for _, second in pairs])
        value, stderr = self.distance(drawn, true), jackknife(self.distance, drawn, true)
        few = (
            f"{len(pairs)} pictures for {drawn.shape[1]} features: biased"
            if len(pairs) <= drawn.shape[1]
            else ""
        )
        ci95 = (value - 1.96 * stderr, value + 1.96 * stderr) if stderr is not None else None
        return Estimate(value, len(pairs), failed, stderr, ci95, note=few)


class Frechet(_Distance):
    """Fréchet distance of normal distributions fitted to the features; smaller is better."""

    name, version, metric = "fid", 1, "FID (smaller is better)"

    def distance(self, drawn: Array, true: Array) -> float:
        return frechet(drawn, true)


class Kernel(_Distance):
    """Kernel distance of the features; smaller is better."""

    name, version, metric = "kid", 1, "KID (smaller is better)"

    def distance(self, drawn: Array, true: Array) -> float:
        return kernel_distance(drawn, true)
