"""Expert review: send answers to Label Studio, make data of the verdicts, train, evaluate, promote."""

from __future__ import annotations

import typer

from annotation.commands import gold, people, show, steps
from annotation.dataset.cli import app as dataset

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.callback()
def _group() -> None:
    """Expert review: send answers to Label Studio, make data of the verdicts, train, evaluate, promote."""


app.command()(steps.setup)
app.command()(show.run)
app.command()(show.status)
for step in (
    steps.route,
    steps.clean,
    steps.publish,
    steps.collect,
    steps.judge,
    steps.build,
    steps.train,
    steps.evaluate,
    steps.promote,
    steps.rollback,
):
    app.command()(step)
app.add_typer(people.held, name="held")
app.add_typer(gold.gold, name="gold")
app.add_typer(people.assign, name="assign")
app.add_typer(people.audit, name="audit")
app.add_typer(dataset, name="dataset")
