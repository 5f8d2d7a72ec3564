"""Figures of a report as PNG bytes (matplotlib, without a display)."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from typing import Any

INK, OURS, THEIRS, FAINT = "#1f2933", "#0b6e75", "#c2571a", "#cbd2d9"


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    # No software and no date: the same records give the same bytes.
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def dots(rows: Sequence[tuple[str, float, Sequence[float] | None, float | None]]) -> bytes:
    """Tasks in per cent with intervals, and a published figure where there is one.

    Args:
        rows: name, value 0 to 1, interval 0 to 1, published in per cent.
    """
    figure, axes = _figure(7.2, 0.8 + 0.27 * len(rows))
    for place, (_, value, ci95, published) in enumerate(rows):
        if ci95:
            axes.plot([100 * ci95[0], 100 * ci95[1]], [place, place], color=OURS, linewidth=2.2, alpha=0.45)
        axes.plot(100 * value, place, "o", color=OURS, markersize=6, label="this run" if place == 0 else None)
        if published is not None:
            axes.plot(published, place, "D", color=THEIRS, markersize=4.5, markerfacecolor="none")
    if any(row[3] is not None for row in rows):
        axes.plot(
            [], [], "D", color=THEIRS, markersize=4.5, markerfacecolor="none", label="MedMax-7B, published"
        )
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("%, with 95 % bootstrap intervals", fontsize=8.5, color=INK)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.75 / len(rows)), ncols=2, frameon=False, fontsize=8.5
    )
    return _png(figure)


def reliability(found: Mapping[str, Any]) -> bytes:
    """Accuracy against confidence, bin by bin; the dots' area is the bins' share of answers."""
    figure, axes = _figure(3.9, 3.5)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, linestyle="--")
    bins = found["bins"]
    sizes = [12 + 260 * one["n"] / found["n"] for one in bins]
    xs, ys = [one["confidence"] for one in bins], [one["accuracy"] for one in bins]
    axes.scatter(xs, ys, s=sizes, color=OURS, alpha=0.75, linewidths=0)
    axes.set(xlim=(-0.03, 1.06), ylim=(-0.03, 1.06))
    axes.set_xlabel("confidence", fontsize=8.5, color=INK)
    axes.set_ylabel("share right", fontsize=8.5, color=INK)
    return _png(figure)


def risk_coverage(curves: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Share of wrong answers among the surest, against the share kept."""
    figure, axes = _figure(3.9, 3.5)
    for (name, found), color in zip(
        curves.items(), (INK, OURS, THEIRS, "#6b4fa0", "#4f7d3a", "#946c00"), strict=False
    ):
        points = found["risk_coverage"]
        width = 2.0 if name == "all" else 1.1
        axes.plot([p[0] for p in points], [p[1] for p in points], color=color, linewidth=width, label=name)
    axes.set(xlim=(0, 1.02), ylim=(bottom := -0.01, None))
    axes.set_ylim(bottom, max(0.05, axes.get_ylim()[1]))
    axes.set_xlabel("coverage (surest answers kept)", fontsize=8.5, color=INK)
    axes.set_ylabel("risk (share wrong)", fontsize=8.5, color=INK)
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def differences(compared: Sequence[Mapping[str, Any]]) -> bytes:
    """Second − first with intervals."""
    figure, axes = _figure(7.2, 0.8 + 0.27 * len(compared))
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, entry in enumerate(compared):
        scale = 100 if max(abs(entry["first"]), abs(entry["second"])) <= 1 else 1
        color = FAINT if entry["p_holm"] > 0.05 else OURS if entry["difference"] > 0 else THEIRS
        if entry["ci95"]:
            low, high = (scale * bound for bound in entry["ci95"])
            axes.plot([low, high], [place, place], color=color, linewidth=2.2, alpha=0.6)
        axes.plot(scale * entry["difference"], place, "o", color=color, markersize=6)
    axes.set_yticks(range(len(compared)), [f"{entry['task']} · {entry['scorer']}" for entry in compared])
    axes.set_ylim(len(compared) - 0.4, -0.6)
    axes.set_xlabel("second − first, points (grey: may be chance)", fontsize=8.5, color=INK)
    return _png(figure)
