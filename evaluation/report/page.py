"""The report as one HTML file: styles and pictures inside, nothing fetched, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.report import plots
from evaluation.report.results import PUBLISHED_AVERAGE, VQA_COLUMNS

PUBLISHED_MODELS = tuple(PUBLISHED_AVERAGE)
# Metrics whose values are shares; shown in per cent. Others are shown as they are.
_SHARES = (
    "accuracy",
    "accuracy (judge)",
    "right slots",
    "right findings",
    "pairs right",
    "CheXbert accuracy",
)


def show(entry: Mapping[str, Any], name: str = "value") -> str:
    """A number of an entry in its metric's unit."""
    value = entry.get(name)
    if value is None:
        return "–"
    if _is_share(entry):
        return f"{100 * value:.1f}"
    return f"{value:.1f}" if max(abs(value), abs(entry.get("value") or 0)) >= 10 else f"{value:.3f}"


def _is_share(entry: Mapping[str, Any]) -> bool:
    return entry.get("metric", "accuracy") in _SHARES


def interval(entry: Mapping[str, Any]) -> str:
    if not entry.get("ci95"):
        return "–"
    low, high = entry["ci95"]
    return f"{show({**entry, 'value': low})} to {show({**entry, 'value': high})}"


def published_table(results: Sequence[Mapping[str, Any]], tasks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The published rows and, last, this run's; None where the run has no figure. Per cent."""
    by_column = {about["column"]: (name, about) for name, about in tasks.items() if about["column"]}
    rows = []
    for model in PUBLISHED_MODELS:
        cells = [_published(by_column, column, model) for column in VQA_COLUMNS]
        rows.append({"model": model, "average": PUBLISHED_AVERAGE[model], "cells": cells, "ours": False})
    cells = []
    for column in VQA_COLUMNS:
        name = by_column[column][0] if column in by_column else None
        values = [r["value"] for r in results if r["task"] == name and r["value"] is not None]
        cells.append(100 * values[0] if values else None)
    whole = [cell for cell in cells if cell is not None]
    average = sum(whole) / len(whole) if len(whole) == len(cells) else None
    return [*rows, {"model": "this run", "average": average, "cells": cells, "ours": True}]


def _published(by_column: Mapping[str, Any], column: str, model: str) -> float | None:
    if column not in by_column:
        return None
    value = by_column[column][1]["published"].get(model)
    return float(value) if value is not None else None


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _dots(results: Sequence[Mapping[str, Any]], tasks: Mapping[str, Any], published: bool) -> bytes | None:
    rows: list[tuple[str, float, Any, float | None]] = []
    seen: set[str] = set()
    for entry in results:
        if entry["value"] is None or not _is_share(entry):
            continue
        name = entry["task"] if entry["task"] not in seen else f"{entry['task']} · {entry['scorer']}"
        first = entry["task"] not in seen
        seen.add(entry["task"])
        theirs = tasks[entry["task"]]["published"].get("MedMax-7B") if first and published else None
        rows.append((name, entry["value"], entry["ci95"], theirs))
    return plots.dots(rows) if rows else None


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"show": show, "interval": interval, "is_share": _is_share}
    return environment


def render(results: Mapping[str, Any], tasks: Mapping[str, Any], published: bool = True) -> str:
    """The page of a run.

    Args:
        results: as `evaluation.report.results.build` makes them.
        tasks: the run's tasks, as run.json keeps them.
    """
    drawn: dict[str, str] = {}
    if plots.available():
        if (png := _dots(results["results"], tasks, not results["phantom_examples"])) is not None:
            drawn["dots"] = _data_url(png)
        if found := results["calibration"].get("all"):
            drawn["reliability"] = _data_url(plots.reliability(found))
            drawn["risk"] = _data_url(plots.risk_coverage(results["calibration"]))
    ran = [entry for entry in results["results"] if entry["value"] is not None]
    families: dict[str, list[Any]] = {}
    for entry in ran:
        families.setdefault(entry["family"], []).append(entry)
    not_run: dict[tuple[str, str], list[str]] = {}
    for entry in results["results"]:
        if entry["value"] is None:
            not_run.setdefault((entry["scorer"], entry["not_run"]), []).append(entry["task"])
    text: str = (
        _environment()
        .get_template("page.html")
        .render(
            results=results, families=families, not_run=not_run, plots=drawn, with_plots=plots.available(),
            table=published_table(results["results"], tasks) if published else [], columns=VQA_COLUMNS,
        )
    )  # fmt: skip
    return text


def render_comparison(comparison: Mapping[str, Any]) -> str:
    """The page of a comparison, as `evaluation.report.compare.compare` makes it."""
    compared = comparison["compared"]
    figure = _data_url(plots.differences(compared)) if plots.available() and compared else None
    text: str = _environment().get_template("comparison.html").render(comparison=comparison, figure=figure)
    return text
