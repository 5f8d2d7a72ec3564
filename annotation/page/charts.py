"""Charts as SVG inside the page: text and shapes, no script. Numbers are in the tables beside them, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from annotation.core import Decision
from annotation.store.figures import Throughput

WIDTH, HEIGHT = 640, 190
_LEFT, _BOTTOM, _TOP = 40, 24, 10
INK, SOFT, LINE = "#1f2933", "#52606d", "#dfe4ea"
SERIES = {
    "routed": ("chosen", "#9fb3c8"),
    "annotations": ("verdicts", "#0b6e75"),
    "judged": ("judged", "#c2571a"),
}
SHARES = {
    Decision.ACCEPT: ("accepted", "#0b6e75"),
    Decision.EDIT: ("edited", "#d9a441"),
    Decision.REJECT: ("rejected", "#a63d00"),
}


def throughput(days: Mapping[date, Throughput]) -> str:
    """Bars by day: chosen, verdicts, judged."""
    if not any(each.routed or each.annotations or each.judged for each in days.values()):
        return ""
    top = _nice(max(max(each.routed, each.annotations, each.judged) for each in days.values()))
    step = (WIDTH - _LEFT) / len(days)
    shapes = [_axis([0, top / 2, top], top, lambda v: f"{v:g}")]
    for place, (day, each) in enumerate(days.items()):
        for index, (name, (_, colour)) in enumerate(SERIES.items()):
            value = getattr(each, name)
            height = value / top * (HEIGHT - _BOTTOM - _TOP)
            x = _LEFT + place * step + step * (0.14 + 0.25 * index)
            shapes.append(
                f'<rect x="{x:.1f}" y="{HEIGHT - _BOTTOM - height:.1f}" width="{step * 0.22:.1f}" height="{height:.1f}" '
                f'fill="{colour}"><title>{day}: {value} {SERIES[name][0]}</title></rect>'
            )
        if place % 2 == len(days) % 2 or len(days) < 8:
            shapes.append(_label(_LEFT + (place + 0.5) * step, day))
    return _svg("Chosen, verdicts and judged by day", shapes, HEIGHT)


def agreement(days: Mapping[date, float], shown: Sequence[date]) -> str:
    """A line over the days that had judgements of two experts or more, in per cent."""
    if not days:
        return ""
    step = (WIDTH - _LEFT) / len(shown)
    points = [
        (
            _LEFT + (shown.index(day) + 0.5) * step,
            HEIGHT - _BOTTOM - value * (HEIGHT - _BOTTOM - _TOP),
            day,
            value,
        )
        for day, value in sorted(days.items())
        if day in shown
    ]
    shapes = [_axis([0, 0.5, 1], 1, lambda v: f"{100 * v:.0f} %")]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
    shapes.append(f'<polyline points="{line}" fill="none" stroke="#0b6e75" stroke-width="2"/>')
    for x, y, day, value in points:
        shapes.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#0b6e75"><title>{day}: {100 * value:.0f} %</title></circle>'
        )
    for place, day in enumerate(shown):
        if place % 2 == len(shown) % 2 or len(shown) < 8:
            shapes.append(_label(_LEFT + (place + 0.5) * step, day))
    return _svg("Share of pairs of experts that agree, by day", shapes, HEIGHT)


def acceptance(modalities: Mapping[str, Mapping[Decision, int]]) -> str:
    """One bar a modality, its parts the shares of decisions."""
    if not modalities:
        return ""
    left, row = 150, 28
    shapes = []
    for place, (modality, counts) in enumerate(sorted(modalities.items())):
        total = sum(counts.values())
        name = (modality or "unknown").replace("_", " ")
        y = place * row + 4
        shapes.append(
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end" font-size="12.5" fill="{INK}">{_safe(name)}</text>'
        )
        x = float(left)
        for decision, (word, colour) in SHARES.items():
            share = counts.get(decision, 0) / total
            width = share * (WIDTH - left - 60)
            if share:
                shapes.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="20" fill="{colour}">'
                    f"<title>{counts[decision]} of {total} {word}</title></rect>"
                )
            if width > 34:
                shapes.append(
                    f'<text x="{x + width / 2:.1f}" y="{y + 14.5}" text-anchor="middle" font-size="11.5" fill="#fff">'
                    f"{100 * share:.0f} %</text>"
                )
            x += width
        shapes.append(f'<text x="{x + 8:.1f}" y="{y + 15}" font-size="12" fill="{SOFT}">{total}</text>')
    return _svg("Decisions by modality", shapes, len(modalities) * row + 6)


def _axis(ticks: Sequence[float], top: float, word: object) -> str:
    shapes = []
    for tick in ticks:
        y = HEIGHT - _BOTTOM - tick / top * (HEIGHT - _BOTTOM - _TOP)
        shapes.append(
            f'<line x1="{_LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{LINE}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" font-size="11.5" fill="{SOFT}">'
            f"{word(tick)}</text>"  # type: ignore[operator]
        )
    return "".join(shapes)


def _label(x: float, day: date) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle" font-size="11.5" fill="{SOFT}">{day:%d %b}</text>'


def _svg(title: str, shapes: Sequence[str], height: int) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}" font-family="inherit">'
        + "".join(shapes)
        + "</svg>"
    )


def _nice(value: float) -> float:
    """The next even number of at least 4, rounded so that half of it is whole."""
    step = 10 ** max(0, len(str(int(value))) - 2)
    return float(max(4, -(-int(value) // (2 * step)) * 2 * step))


def _safe(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
