"""Measure models: the MedMax suite, comparisons of runs, and held-out synthetic pictures."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.suite import commands
from services.commands.output import Json, document, err, out

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.callback()
def _group() -> None:
    """Measure models: the MedMax suite, comparisons of runs, and held-out synthetic pictures."""


app.command("suite")(commands.suite)
app.command("report")(commands.report)
app.command("compare")(commands.compare)
app.command("make-phantom-data")(commands.make_phantom_data)


@app.command()
def phantom(
    seed: Annotated[
        int, typer.Option(min=0, max=999_999, help="Which held-out phantoms; training uses none of them.")
    ] = 1,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Phantoms to ask about.")] = 1000,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint directory; default: the configured one.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="Write every question, answer and judgement here, one JSON a line.")
    ] = None,
    json: Json = False,
) -> None:
    """Ask, caption and draw held-out phantoms in process and score the answers, with standard errors."""
    from services.commands.output import stdout_reserved

    with stdout_reserved(json):
        result = _measure(seed, count, checkpoint, records)
    if json:
        document(result)
    else:
        _table(result)


def _measure(seed: int, count: int, checkpoint: Path | None, records: Path | None) -> dict[str, Any]:
    import json as jsonlib

    from rich.progress import Progress

    from evaluation.phantom_eval import evaluate
    from services import config
    from services.gateway.local import local_assistant

    # Nothing of an evaluation is an interaction, and its requests wait for their turn, however long.
    overrides: dict[str, Any] = {"store": False, "request_timeout_s": 3600}
    settings = config.load(**overrides, **({"checkpoint": checkpoint} if checkpoint else {}))
    begin = time.monotonic()

    async def run() -> Any:
        async with local_assistant(settings) as assistant:
            with Progress(console=err, transient=True) as shown:
                task = shown.add_task("phantoms", total=count)
                return await evaluate(
                    assistant, seed, count, progress=lambda done, _: shown.update(task, completed=done)
                )

    report = asyncio.run(run())
    if records is not None:
        records.parent.mkdir(parents=True, exist_ok=True)
        records.write_text("".join(jsonlib.dumps(asdict(outcome)) + "\n" for outcome in report.outcomes))
    result: dict[str, Any] = report.to_json()
    result |= {"checkpoint": settings.checkpoint.name, "seconds": round(time.monotonic() - begin, 1)}
    return result


def _table(result: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=f"{result['count']} held-out phantoms (seed {result['seed']}), {result['seconds']} s")
    names = ["all", *result["per_modality"]]
    for heading in ("score", *names):
        table.add_column(heading, justify="left" if heading == "score" else "right")
    for score, value in result["scores"].items():
        error = result["stderr"][score]
        first = _percent(value) + (f" ±{100 * error:.1f}" if error is not None else "")
        table.add_row(score, first, *(_percent(row[score]) for row in result["per_modality"].values()))
    out.print(table)
    out.print(f"The analyser reads {_percent(result['analyser_on_truth'])} of the real phantoms right.")
    if result["failed"]:
        out.print(f"[red]{result['failed']} requests failed; they count as wrong.[/]")


def _percent(value: float | None) -> str:
    return "not asked" if value is None else f"{100 * value:.1f} %"
