"""Roll-outs for people and as JSON."""

from __future__ import annotations

import time
from typing import Any

from rich.markup import escape

from services.commands.output import out, printable
from services.rollout.place import BLIND, METRICS, PROMETHEUS, SELECTOR, Place
from services.rollout.planning import Plan
from services.rollout.record import Event, Phase, Rollout, iso
from services.rollout.target import State
from services.rollout.version import Version

_STYLE = {
    Phase.PROMOTED: "green",
    Phase.ROLLED_BACK: "red",
    Phase.FAILED: "bold red",
    Phase.ABORTED: "yellow",
}


def plan(made: Plan) -> None:
    """What would be done, and what will be checked."""
    _line("target", made.place.target.name)
    _versions(made.rollout)
    if made.nothing:
        out.print("\nIt serves this already; start would change nothing.")
        return
    out.print()
    for line in made.diff.splitlines():
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        out.print(printable(line), style=colour, markup=False)
    out.print()
    _line("how", made.how)
    for index, check in enumerate(made.rollout.limits.checks()):
        _line("" if index else "checked", check)
    _line(
        "judged by",
        _sources(made.rollout) or "nothing yet: start wants --prometheus, --metrics or --health-only",
    )
    if not made.rollout.new.digest:
        _line("digest", "not known: which weights answer is not checked; give --digest")
    if not made.state.ready:
        _line("now", f"not healthy ({made.state.detail}): start would refuse without --force")


def status(where: Place, state: State, current: Rollout | None) -> None:
    _line("target", where.target.name)
    _line("serves", str(state.version))
    _line("health", f"{'ready' if state.ready else 'not ready'}: {state.detail}")
    if current is None:
        _line("roll-out", "none yet")
        return
    out.print()
    rollout(current)


def rollout(found: Rollout) -> None:
    """How far a roll-out is, or what came of it."""
    style = _STYLE.get(found.phase, "bold")
    lasting = _ago(time.time() - found.since)
    since = f"{lasting} ago" if found.phase.over else f"for {lasting}"
    out.print(f"{'roll-out':>9}  {escape(found.id)}  [{style}]{found.phase}[/], {since}")
    _versions(found)
    _line("by", found.by + (f": {found.why}" if found.why else ""))
    if found.reason:
        _line("reason", found.reason)
    if found.baseline:
        _line("before", str(found.baseline))
    if found.measured:
        _line("after", str(found.measured))
    if found.abort and not found.phase.over:
        _line("abort", f"asked for by {found.abort['by']}")
    if found.phase is Phase.FAILED:
        _line("now", "look at the target: nothing more happens by itself")


def history(events: list[Event]) -> None:
    if not events:
        out.print("no roll-out yet")
    for event in events:
        out.print(f"{iso(event.at)[:19]}Z  [bold]{escape(event.what):<16}[/] {escape(event.rollout)}")
        detail = f"{event.by}: {_short(event.old)} → {_short(event.new)}"
        out.print(printable(f"{'':22}{detail}"), markup=False, style="dim")
        if event.reason:
            out.print(printable(f"{'':22}{event.reason}"), markup=False)


def status_json(where: Place, state: State, current: Rollout | None) -> dict[str, Any]:
    return {
        "target": where.target.name,
        "serves": vars(state.version),
        "ready": state.ready,
        "detail": state.detail,
        "rollout": rollout_json(current) if current else None,
    }


def rollout_json(found: Rollout) -> dict[str, Any]:
    return {
        "id": found.id,
        "outcome" if found.phase.over else "phase": found.phase.value,
        "from": vars(found.old),
        "to": vars(found.new),
        "by": found.by,
        "why": found.why,
        "reason": found.reason,
        "begun": iso(found.begun),
        "since": iso(found.since),
        "before": found.baseline.facts() if found.baseline else None,
        "after": found.measured.facts() if found.measured else None,
    }


def _versions(found: Rollout) -> None:
    _line("from", str(found.old))
    digest = f", weights {found.new.digest[:12]}" if found.new.digest else ""
    _line("to", f"{found.new}{digest}")
    for name, value in (found.change.images | found.change.env).items():
        _line("", f"{name}={value}")


def _sources(found: Rollout) -> str:
    used = {name: urls for name, urls in found.sources.items() if urls}
    if not used.keys() & {METRICS, PROMETHEUS, BLIND}:
        return ""
    return ", ".join(f"{name} {' '.join(urls)}" for name, urls in used.items() if name != SELECTOR)


def _short(version: Version) -> str:
    return version.checkpoint.rstrip("/").rpartition("/")[2] + (
        f" ({version.digest[:12]})" if version.digest else ""
    )


def _line(name: str, text: str) -> None:
    out.print(f"{name:>9}  ", end="", style="dim")
    out.print(printable(text), markup=False)


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} seconds"
