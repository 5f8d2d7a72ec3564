"""`medmax eval suite`, `report`, `compare` and `make-phantom-data`."""

from __future__ import annotations

import asyncio
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from services.commands.output import Json, document, err, out, printable, say, stdout_reserved
from services.errors import InvalidInput

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


class Format(StrEnum):
    """How rows are written."""

    jsonl = "jsonl"
    parquet = "parquet"
    datasets = "datasets"


def suite(
    data: Annotated[
        Path, typer.Option(help="medmax_eval_data: a folder (datasets, parquet, JSONL) or a file.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="WHO",
            help="http(s)://… (OpenAI-compatible), grpc://host:port, or a checkpoint directory, which runs in process. "
            "Default: the configured checkpoint. A server's key is read from MEDMAX_API_KEY.",
        ),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="A,B", help="Tasks or families; default: all that the data hold.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder of records; the same command goes on from there. Default: a name under var/eval."
        ),
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=512, help="Requests at a time.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first examples of each task.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask and judge again what failed for good in this run.")
    ] = False,
    judge_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="OpenAI-compatible judge, with /v1. Its key is read from MEDMAX_JUDGE_KEY."
        ),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="The judge's model.")] = None,
    judge_timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds for one try.")] = 60.0,
    clip: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Folder of BiomedCLIP, another open_clip or a Hugging Face CLIP model."
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|MOD:FN", help="Feature extractor for FID and KID: TorchScript, or a callable."
        ),
    ] = None,
    model_id: Annotated[
        str | None, typer.Option(help="Model to ask a server for; default: the first it lists.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, max=86_400, help="Seconds for one answer.")] = 600.0,
    json: Json = False,
) -> None:
    """Run the MedMax suite, or go on with it, and write results.json and report.html."""
    from evaluation.scorers import Endpoint, Scorers, Tools
    from evaluation.suite.data import EvalData
    from evaluation.tasks import chosen

    if (judge_url is None) != (judge_model is None):
        raise typer.BadParameter("--judge-url and --judge-model go together", param_hint="--judge-url")
    if judge_url is not None and not judge_url.startswith(("http://", "https://")):
        raise typer.BadParameter("must begin with http:// or https://", param_hint="--judge-url")
    if clip is not None and not clip.is_dir():
        raise typer.BadParameter(f"there is no folder {clip}", param_hint="--clip")
    wanted = chosen(
        [name.strip() for name in tasks.split(",") if name.strip()] if tasks is not None else None
    )
    if not wanted:
        raise typer.BadParameter("names no task", param_hint="--tasks")
    found = EvalData.find(data)

    async def work() -> Path:
        judge = (
            Endpoint(
                judge_url,
                judge_model,
                os.environ.get("MEDMAX_JUDGE_KEY", ""),
                timeout_s=judge_timeout,
                parallel=parallel,
            )
            if judge_url and judge_model
            else None
        )
        scorers = Scorers(Tools(judge, clip, features))
        try:
            return await _run(found, wanted, scorers, model, model_id, run, timeout, retry_failed,
                              {"parallel": parallel, "limit": limit, "strict": strict})  # fmt: skip
        finally:
            await scorers.close()

    with stdout_reserved(json):
        folder = asyncio.run(work())
        results = write_report(folder)
    _shown(results, folder, json)


async def _run(
    data: Any, tasks: Any, scorers: Any, model: str | None, model_id: str | None, folder: Path | None, timeout: float,
    retry_failed: bool, options: dict[str, Any],
) -> Path:  # fmt: skip
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from evaluation.suite.models import connect
    from evaluation.suite.records import Run
    from evaluation.suite.run import run_suite

    digest = await asyncio.to_thread(data.digest)
    asked = model or "configured"
    name = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in asked).strip("-.")[
        -60:
    ]
    folder = folder or Path("var/eval") / f"{name}-{digest[:8]}"
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"{folder} is a file", field="--run")
    folder.mkdir(parents=True, exist_ok=True)
    identity = {
        "data": {"digest": digest, "files": len(data.files)},
        "model": asked if asked == "configured" or "://" in asked else Path(asked).name,
    }
    run = Run(folder, identity, retry_failed)
    try:
        if run.answers:
            say(f"going on in {folder}: {len(run.answers)} answers are there")
        async with connect(model, timeout, model_id) as asked_model:
            say(f"asking {asked_model.where}; records in {folder}")
            columns = (
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failed]}"),
                TimeElapsedColumn(), TimeRemainingColumn(),
            )  # fmt: skip
            with Progress(*columns, console=err, transient=True) as bars:
                bar = bars.add_task("examples", total=None, failed="")

                def progress(done: int, total: int, failed: int) -> None:
                    shown = f"[red]{failed} failed[/]" if failed else ""
                    bars.update(bar, completed=done, total=total, failed=shown)

                await run_suite(data, tasks, scorers, asked_model, run, progress=progress, **options)
    finally:
        run.close()
    return folder


def write_report(folder: Path) -> dict[str, Any]:
    """Make `results.json` and `report.html` of a run anew from its records; returns the results."""
    from evaluation.report.page import render
    from evaluation.report.results import Records, build
    from evaluation.suite.records import write_json

    records = Records.read(folder)
    results = build(records)
    write_json(folder / "results.json", results)
    part = folder / "report.html.part"
    part.write_text(render(results, records.tasks), encoding="utf-8")
    part.replace(folder / "report.html")
    return results


def report(run: RunFolder, json: Json = False) -> None:
    """Make the table and the page of a run again from its records."""
    with stdout_reserved(json):
        results = write_report(run)
    _shown(results, run, json)


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder of the run before.")],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder of the run after.")],
    page: Annotated[Path | None, typer.Option(dir_okay=False, help="Write an HTML page here.")] = None,
    json: Json = False,
) -> None:
    """Compare two runs example by example: McNemar's test for binary scores, the paired bootstrap for others."""
    from evaluation.report.compare import compare as compared
    from evaluation.report.page import interval, render_comparison, show
    from evaluation.report.results import Records

    with stdout_reserved(json):
        result = compared(Records.read(first), Records.read(second))
        if page is not None:
            try:
                page.write_text(render_comparison(result), encoding="utf-8")
            except OSError as error:
                raise InvalidInput(f"cannot be written: {error.strerror}", field="--page") from None
    if json:
        document(result)
        return
    from rich.table import Table

    table = Table(title=f"{first.name} → {second.name}")
    for heading in ("task", "scorer", "n", "first", "second", "difference", "95 %", "p", "p (Holm)"):
        table.add_column(heading, justify="left" if heading in ("task", "scorer") else "right")
    for entry in result["compared"]:
        table.add_row(
            entry["task"], entry["scorer"], str(entry["n"]), show(entry, "first"), show(entry, "second"),
            show(entry, "difference"), interval(entry), f"{entry['p']:.3g}", f"{entry['p_holm']:.3g}",
        )  # fmt: skip
    out.print(table)
    for entry in result["left_out"]:
        out.print(
            f"not compared: {entry['task']} · {entry['scorer']}: {entry['reason']}", style="dim", markup=False
        )


def make_phantom_data(
    folder: Annotated[Path, typer.Option("--out", file_okay=False, help="New folder.")],
    seed: Annotated[int, typer.Option(min=0, max=999_999, help="Which held-out phantoms.")] = 1,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="Rows of each task.")] = 50,
    kind: Annotated[Format, typer.Option("--format", help="How rows are written.")] = Format.jsonl,
    json: Json = False,
) -> None:
    """Write evaluation data made from phantoms: every published task's analogue, and the robustness probes."""
    from rich.progress import Progress

    from evaluation.suite.phantom_data import write_phantom_data

    with stdout_reserved(json), Progress(console=err, transient=True) as bars:
        bar = bars.add_task("rows", total=None)
        made = write_phantom_data(
            folder, seed, count, kind.value, lambda done, total: bars.update(bar, completed=done, total=total)
        )
    if json:
        document(made)
    else:
        out.print(f"{made['rows']} rows of {len(made['tasks'])} tasks: {folder}", markup=False)


def _shown(results: dict[str, Any], folder: Path, json: bool) -> None:
    if json:
        document({**results, "folder": str(folder), "report": str(folder / "report.html")})
        return
    from rich.table import Table

    from evaluation.report.page import interval, show

    table = Table(title=f"{results['model']['id'] or 'no answers yet'} ({results['where']})")
    for heading in ("task", "metric", "scorer", "n", "failed", "value", "±", "95 %"):
        table.add_column(heading, justify="left" if heading in ("task", "metric", "scorer") else "right")
    for entry in [*results["results"], *({**a, "task": f"average: {a['name']}", "failed": 0,
                                          "scorer": ", ".join(a["scorers"])} for a in results["averages"])]:  # fmt: skip
        if entry["value"] is not None:
            table.add_row(
                entry["task"], entry["metric"], entry["scorer"], str(entry["n"]), str(entry["failed"]), show(entry),
                show(entry, "stderr"), interval(entry),
            )  # fmt: skip
    out.print(table)
    missing: dict[tuple[str, str], list[str]] = {}
    for entry in results["results"]:
        if entry["value"] is None:
            missing.setdefault((entry["scorer"], entry["not_run"]), []).append(entry["task"])
    for (scorer, reason), names in missing.items():
        text = printable(f"not run: {scorer} ({reason}) for {', '.join(names)}")
        out.print(text, style="dim", markup=False)
    bad = results["bad_rows"] or {"total": 0}
    if bad["total"]:
        out.print(
            f"{bad['total']} bad rows: {bad['reasons']}; {printable(bad['named'][0])}",
            style="red",
            markup=False,
        )
    out.print(str(folder / "report.html"), markup=False)
