"""`Status` → HTML: one file, styles and charts inside, nothing fetched, no script."""

from __future__ import annotations

from pathlib import Path

from annotation.core import Kind
from annotation.loop.status import Status
from annotation.page import charts
from annotation.store import ReviewStore, State
from services.config import Settings

MEANS = {
    State.ROUTED: "chosen; identifiers are removed next",
    State.HELD: "in doubt; a person must look",
    State.CLEANED: "de-identified; published next",
    State.PUBLISHED: "with the experts",
    State.COLLECTED: "verdicts are there; judged next",
    State.ADJUDICATION: "experts disagree; an adjudicator decides",
    State.JUDGED: "in the next version of the data",
    State.BUILT: "in the data",
    State.WITHDRAWN: "taken out, content deleted",
}


def age(hours: float | None) -> str:
    if hours is None:
        return ""
    if hours < 1:
        return f"{max(0, round(60 * hours))} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def page(settings: Settings) -> str:
    """For the gateway: the status of the installation's review."""
    store = ReviewStore.open(settings)
    try:
        return render(Status.of(store))
    finally:
        store.close()


def render(status: Status) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"age": age}
    return environment.get_template("status.html").render(
        status=status,
        kinds=list(Kind),
        means=MEANS,
        series=charts.SERIES,
        shares=charts.SHARES,
        throughput=Markup(charts.throughput(status.throughput)),
        agreement=Markup(charts.agreement(status.agreement, list(status.throughput))),
        acceptance=Markup(charts.acceptance(status.acceptance)),
    )
