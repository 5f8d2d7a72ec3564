"""The results as a table, for a terminal and for a page."""

from __future__ import annotations

from rich.table import Table

from loadtests.engine.figures import Ratio, Row
from loadtests.engine.results import PROMPT_WORK, Results
from loadtests.engine.works import OURS

HEADINGS = (
    "model",
    "work",
    "callers",
    "engine",
    "tokens/s",
    "TTFT p50 ms",
    "TTFT p99 ms",
    "ITL p50 ms",
    "pictures/s",
    "goodput/s",
    "ours ×",
    "note",
)
TEXT_COLUMNS = {"model", "work", "engine", "note"}


def lines(results: Results) -> list[list[str]]:
    """Cells of the table, a row an engine; `ours ×` is how many times its figure ours is, median (least to most)."""
    found: list[list[str]] = []
    for row, note in results.rows():
        quotients = {(r.work, r.callers, r.ours_over): r for r in results.ratios(row.model)}
        ratio = quotients.get((row.work, row.callers, row.engine))
        read = quotients.get((row.work, row.callers, PROMPT_WORK))
        if row.engine == OURS and read is not None:
            note = f"reads {read.ratio_median:.2f} × the prompt tokens of one question"
        name = [row.model, row.work, str(row.callers or ""), row.engine]
        found.append([*name, *_figures(row), _times(ratio), note])
    return found


def _figures(row: Row) -> list[str]:
    return [
        _number(row.output_tokens_per_s, 0),
        _number(row.ttft_p50_ms, 0),
        _number(row.ttft_p99_ms, 0),
        _number(row.itl_p50_ms, 1),
        _number(row.pictures_per_s, 3),
        _number(row.goodput_rps, 2),
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _times(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio.ratio_median:.2f} ({ratio.ratio_min:.2f} to {ratio.ratio_max:.2f})"


def table(results: Results, title: str) -> Table:
    """For a terminal."""
    out = Table(title=title, title_justify="left")
    for heading in HEADINGS:
        out.add_column(heading, justify="left" if heading in TEXT_COLUMNS else "right", overflow="fold")
    for line in lines(results):
        out.add_row(*line)
    return out


def markdown(results: Results) -> str:
    """For a page."""
    rule = ["---" if heading in TEXT_COLUMNS else "---:" for heading in HEADINGS]
    body = [list(HEADINGS), rule, *lines(results)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in body)
