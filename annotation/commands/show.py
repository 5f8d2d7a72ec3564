"""`medmax review status` and `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from annotation.commands.common import Config, opened
from services.commands.output import Json, document, out, printable, say, stdout_reserved

if TYPE_CHECKING:
    from annotation.loop.status import Status

_MEANS = {
    "routed": "chosen; identifiers are removed next",
    "held": "in doubt; a person must look",
    "cleaned": "de-identified; published next",
    "published": "with the experts",
    "collected": "verdicts are there; judged next",
    "adjudication": "experts disagree; an adjudicator decides",
    "judged": "in the next version of the data",
    "built": "in the data",
    "withdrawn": "taken out, content deleted",
}


def status(config: Config = None, json: Json = False) -> None:
    """What waits where and for how long, what experts did, versions and their scores."""
    from annotation.loop.status import Status

    with stdout_reserved(json), opened(config) as loop:
        found = Status.of(loop.store)
    if json:
        document(found.to_json())
    else:
        _show(found)


def _show(status: Status) -> None:
    from rich.table import Table

    from annotation.core import Kind

    def table(title: str, *headings: str, right: tuple[str, ...] = ()) -> Table:
        made = Table(title=title, title_justify="left", title_style="bold")
        for heading in headings:
            made.add_column(heading, justify="right" if heading in right else "left")
        return made

    kinds = [kind.value for kind in Kind]
    queues = table("Items", "state", *kinds, "oldest", "meaning", right=(*kinds, "oldest"))
    for state in _MEANS:
        counts: dict[Any, int] = next((c for s, c in status.states.items() if s.value == state), {})
        since = next((s for s in status.oldest if s.value == state), None)
        if counts:
            waits = status.waits(since) if since is not None else None
            numbers = [str(counts.get(kind, "")) for kind in Kind]
            queues.add_row(state, *numbers, "" if waits is None else age(waits), _MEANS[state])
    out.print(queues if queues.row_count else "No item yet: `medmax review route` chooses some.")
    days = [
        (day, each)
        for day, each in status.throughput.items()
        if each.routed or each.annotations or each.judged
    ]
    if days:
        flow = table("Last days (UTC)", "day", "chosen", "verdicts", "judged", "agreement",
                     right=("chosen", "verdicts", "judged", "agreement"))  # fmt: skip
        for day, each in days:
            flow.add_row(str(day), str(each.routed), str(each.annotations), str(each.judged),
                         percent(status.agreement.get(day)))  # fmt: skip
        out.print(flow)
    if status.acceptance:
        taken = table("Accepted by experts", "modality", "judged", "accepted", "edited", "rejected",
                      right=("judged", "accepted", "edited", "rejected"))  # fmt: skip
        for modality, counts in sorted(status.acceptance.items()):
            total = sum(counts.values())
            shares = [percent(counts.get(name, 0) / total) for name in ("accept", "edit", "reject")]  # type: ignore[call-overload]
            taken.add_row(modality or "unknown", str(total), *shares)
        out.print(taken)
    if status.data:
        data = table("Data", "version", "built", "items", "rows", "pairs", "unpaired", right=("items", "rows", "pairs", "unpaired"))  # fmt: skip
        for version in status.data:
            n = version.scores.get("counts", {})
            data.add_row(version.id[:12], f"{version.created_at:%Y-%m-%d %H:%M}", str(status.sizes.get(version.id, 0)),
                         *(str(n.get(f"{name}.jsonl", 0)) for name in ("rows", "preferences", "unpaired")))  # fmt: skip
        out.print(data)
    if status.models:
        models = table("Models", "model", "state", "target's gain", "why")
        for version in status.models:
            target = version.scores.get("target")
            gain = (
                ""
                if not target
                else f"{target['gain']:+.3f} ({target['ci95'][0]:+.3f} to {target['ci95'][1]:+.3f})"
            )
            models.add_row(version.id, version.status.value, gain, printable(version.why))
        out.print(models)
    for sentence in status.warnings:
        out.print(f"! {printable(sentence)}", style="yellow", markup=False)


def age(hours: float) -> str:
    if hours < 1:
        return f"{max(0, round(60 * hours))} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def run(
    config: Config = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Default: `port` of the settings, else 8010; 0 = any free one."),
    ] = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End once nothing is left to do but to wait for people.")
    ] = False,
    json: Json = False,
) -> None:
    """Keep all steps going and serve webhook, pictures and status page, until Ctrl-C."""
    from annotation.loop.context import Loop
    from annotation.loop.controller import Controller
    from annotation.loop.server import PAGE, listening
    from annotation.loop.settings import load_review
    from services import logs
    from services.config import load
    from services.errors import ConfigurationError, MedMaxError

    settings, base = load_review(config), load()
    if not settings.loopback and not base.api_keys:
        raise ConfigurationError("listening beyond loopback needs MEDMAX_API_KEYS", field="review.host")
    logs.configure("review")
    with listening(settings.host, settings.port if port is None else port) as listener:
        address = f"http://{settings.host}:{listener.getsockname()[1]}"
        with Loop(settings, base, public_url=address) as loop:
            facts = {"url": address, "status": f"{address}{PAGE}", "labelstudio": settings.labelstudio.url}
            if json:
                document(facts)
            else:
                out.print(f"status page: {facts['status']}", markup=False)
                out.print(
                    f"Label Studio: {settings.labelstudio.url or 'not set; nothing is published'}",
                    markup=False,
                )
                out.print("Ctrl-C ends.", markup=False)
            try:
                loop.setup()
            except MedMaxError as error:
                say(f"Label Studio is not set up yet, which is tried again: {error}")
            Controller(loop, until_idle=until_idle).run(listener)
    say("ended")
