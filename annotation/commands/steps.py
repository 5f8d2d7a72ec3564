"""One pass of each step by hand."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from annotation.commands.common import Config, Why, opened, person, report
from services.commands.output import Json, document, out, printable, say, stdout_reserved
from services.errors import NotFound


def _once(config: Any, json: bool, *names: str) -> None:
    from annotation.loop.once import once

    with stdout_reserved(json), opened(config) as loop:
        found = once(loop, names)
    if json and len(found) > 1:
        document({"steps": {name: result.to_json() for name, result in found.items()}})
        return
    for name, result in found.items():
        report(name, result, json)


def setup(config: Config = None, json: Json = False) -> None:
    """Enrol the experts of the settings and make the four projects in Label Studio; safe to repeat."""
    with stdout_reserved(json), opened(config) as loop:
        projects = loop.setup()
        url = loop.settings.labelstudio.url
        experts = [each.id for each in loop.crew.all() if each.active]
        hook = f"{loop.hook_url}/labelstudio/webhook" if loop.hook_url else ""
    if json:
        document({"labelstudio": url, "projects": projects, "experts": experts, "webhook": hook})
        return
    if not url:
        out.print("Label Studio is not set: give its address as labelstudio.url and a token.", markup=False)
    for kind, number in projects.items():
        out.print(f"{kind:11} {url}/projects/{number}/data", markup=False)
    out.print(
        f"experts: {', '.join(experts) or 'none; name them under `experts` in the settings'}", markup=False
    )
    if hook and url:
        out.print(f"webhook: {hook}; `medmax review run` answers there", markup=False)


def route(
    config: Config = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent and why; change nothing.")
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Why this interaction would be sent or not; changes nothing."),
    ] = None,
    json: Json = False,
) -> None:
    """Choose which answers go to experts: by risk, by users' flags, and an unbiased random share."""
    if not dry_run and explain is None:
        _once(config, json, "route")
        return
    from annotation.loop.steps.route import plan

    with stdout_reserved(json), opened(config) as loop:
        made, _ = plan(loop)
        sentences = made.explain(explain) if explain is not None else []
        if explain is not None and not sentences:
            sentences = [_absent(loop, explain)]
    if explain is not None:
        if json:
            document({"id": explain, "explanation": sentences})
        for sentence in sentences if not json else ():
            out.print(printable(sentence), markup=False)
        return
    if json:
        items = [
            {
                "id": one.candidate.id,
                "kind": one.candidate.kind.value,
                "reason": one.reason.value if one.reason else None,
                "speciality": one.candidate.speciality,
                "modality": one.candidate.modality,
                "risk": one.candidate.risk,
            }
            for one in made.sent
        ]
        document({**made.to_json(), "items": items})
        return
    _plan_table(made)


def _absent(loop: Any, id: str) -> str:
    from annotation.core import Kind
    from services.errors import InvalidInput

    found = []
    for kind in Kind:
        try:
            found.append(loop.store.items.get(f"{kind.value}:{id}"))
        except NotFound:
            continue
        except InvalidInput:
            break
    if found:
        return "; ".join(
            f"{each.kind.value}: sent before, {_WORDS.get(each.reason.value, each.reason.value)}; now {each.state.value}"
            for each in found
        )
    return "no candidate: unknown, expired, too old, or stored without consent to be training data"


def _plan_table(made: Any) -> None:
    from rich.table import Table

    table = Table(title=f"{len(made.sent)} would be sent, {len(made.withheld)} not", title_justify="left")
    for heading in ("", "why", "kind", "speciality", "items"):
        table.add_column(heading, justify="right" if heading == "items" else "left")
    for row in made.table():
        table.add_row(
            "send" if row["sent"] else "keep", _WORDS.get(row["outcome"], row["outcome"]), row["kind"],
            row["speciality"], str(row["count"]),
        )  # fmt: skip
    out.print(table)
    if made.sent:
        some = Table(title="the first of them", title_justify="left")
        for heading in ("interaction", "kind", "why", "risk", "modality"):
            some.add_column(heading, justify="right" if heading == "risk" else "left")
        for one in made.sent[:10]:
            some.add_row(
                one.candidate.id, one.candidate.kind.value, _WORDS.get(one.reason.value, one.reason.value),
                f"{one.candidate.risk:.2f}", one.candidate.modality or "unknown",
            )  # fmt: skip
        out.print(some)
        out.print(
            "`--explain ID` says more of one. Without --dry-run they are sent.", style="dim", markup=False
        )


_WORDS = {
    "flag": "a user flagged it",
    "risk": "the model is unsure",
    "random": "random share",
    "already_sent": "sent before",
    "too_old": "too old",
    "duplicate": "repeats another one",
    "budget": "no budget left today",
    "below_threshold": "not risky enough",
}


def clean(config: Config = None, json: Json = False) -> None:
    """Remove identifiers from chosen items; hold those in doubt."""
    _once(config, json, "clean")


def publish(config: Config = None, json: Json = False) -> None:
    """Make tasks in Label Studio, once for each item."""
    _once(config, json, "publish")


def collect(
    config: Config = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Compare all of Label Studio with the store, now.")
    ] = False,
    json: Json = False,
) -> None:
    """Take experts' verdicts in: what the webhook told of, and everything where that is due."""
    if everything:
        from annotation.loop.cursors import RECONCILED

        with opened(config) as loop:
            loop.store.progress.set_cursor(RECONCILED, None)
    _once(config, json, "collect")


def judge(config: Config = None, json: Json = False) -> None:
    """Decide what collected verdicts come to, ask for more, or for an adjudicator."""
    _once(config, json, "judge", "calibrate")


def build(config: Config = None, json: Json = False) -> None:
    """Make a version of instruction data of all that is judged, now."""
    from annotation.loop.steps import build as step

    with stdout_reserved(json), opened(config) as loop:
        result = step.run(loop, now=True)
    report("build", result, json)


def train(config: Config = None, json: Json = False) -> None:
    """Train a candidate on the newest version, now; goes on with a training that was cut short."""
    from annotation.loop.steps import train as step

    with stdout_reserved(json), opened(config) as loop:
        say(f"training in {loop.folder / 'models'}; log.txt there tells how it goes")
        result = step.run(loop, now=True)
    report("train", result, json)


def evaluate(config: Config = None, json: Json = False) -> None:
    """Ask candidates and the model in service the evaluation sets, and compare."""
    _once(config, json, "evaluate")


def promote(
    id: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Promote this one by hand, whatever the figures; needs --why."),
    ] = None,
    why: Why = "",
    config: Config = None,
    json: Json = False,
) -> None:
    """Put an evaluated candidate into service, or refuse it, and say why; `current` follows."""
    from annotation.loop import pointer
    from annotation.loop.steps import promote as step

    if id is None:
        _once(config, json, "promote")
        return
    if not why:
        raise typer.BadParameter("say why", param_hint="--why")
    with stdout_reserved(json), opened(config) as loop:
        step.by_hand(loop, id, why, person())
        current = pointer.path(loop)
    _served(id, str(current), json)


def rollback(why: Why = "rolled back by hand", config: Config = None, json: Json = False) -> None:
    """Go back to the model that was in service before; `current` follows."""
    from annotation.loop import pointer
    from annotation.loop.steps import promote as step

    with stdout_reserved(json), opened(config) as loop:
        name = step.rollback(loop, why, person())
        current = pointer.path(loop)
    _served(name, str(current), json)


def _served(name: str, current: str, json: bool) -> None:
    if json:
        document({"model": name, "current": current})
    else:
        out.print(f"{name} is in service: medmax serve --checkpoint {current}", markup=False)
