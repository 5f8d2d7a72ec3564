"""The results as one picture: rates by engine and load, a row of panels for each model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loadtests.engine.figures import Row
from loadtests.engine.results import Results

_PANELS = {
    "text": ("output_tokens_per_s", "text: tokens per second"),
    "questions": ("output_tokens_per_s", "ten questions on a picture: tokens per second"),
    "pictures": ("pictures_per_s", "guided pictures per second"),
    "mixed": ("goodput_rps", "mixed: answers per second within the objective"),
}
_COLOURS = {
    "ours": "#1b6ca8",
    "ours-serial": "#9bbfd9",
    "vllm": "#e08e0b",
    "transformers-generate": "#7a7a7a",
    "transformers-generate-batch": "#b9b9b9",
    "transformers-guided": "#8a6d3b",
}
_WIDTH = 0.8  # of a group of bars


def plot(results: Results, file: Path, title: str) -> None:
    """Write a PNG.

    Raises:
        ImportError: matplotlib is missing; it comes with the dev extra.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row, _ in results.rows() if row.runs]
    models = list(dict.fromkeys(row.model for row in rows))
    kinds = [kind for kind in _PANELS if any(row.work == kind for row in rows)]
    figure, axes = pyplot.subplots(
        max(1, len(models)),
        max(1, len(kinds)),
        figsize=(4.2 * max(1, len(kinds)), 3.2 * max(1, len(models)) + 0.8),
        squeeze=False,
        layout="constrained",
    )
    for line, model in zip(axes, models, strict=False):
        for axis, kind in zip(line, kinds, strict=True):
            shown = [row for row in rows if row.model == model and row.work == kind]
            axis.set_visible(bool(shown))
            _panel(axis, shown, kind)
            axis.set_title(f"{model}, {_PANELS[kind][1]}", fontsize=8)
    engines = list(dict.fromkeys(row.engine for row in rows))
    handles = [matplotlib.patches.Patch(color=_COLOURS.get(name, "black"), label=name) for name in engines]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, len(engines)), fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _panel(axis: Any, rows: list[Row], kind: str) -> None:
    loads = list(dict.fromkeys(row.callers for row in rows))
    engines = list(dict.fromkeys(row.engine for row in rows))
    width = _WIDTH / max(1, len(engines))
    for row in rows:
        height = getattr(row, _PANELS[kind][0])
        if height is None:
            continue
        place = loads.index(row.callers) + (engines.index(row.engine) - (len(engines) - 1) / 2) * width
        bar = axis.bar(place, height, width, color=_COLOURS.get(row.engine, "black"))
        axis.bar_label(bar, [f"{height:.0f}" if height >= 100 else f"{height:.3g}"], fontsize=6)
    axis.set_xticks(range(len(loads)), [_load(load) for load in loads], fontsize=7)
    axis.tick_params(axis="y", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def _load(callers: int | None) -> str:
    if callers is None:
        return "arrivals"
    return "1 caller" if callers == 1 else f"{callers} callers"
