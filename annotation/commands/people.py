"""`medmax review held`, `assign`, `audit`: what people look at and decide."""

from __future__ import annotations

from typing import Annotated

import typer

from annotation.commands.common import Config, opened, person
from services.commands.output import Json, document, out, printable, stdout_reserved

held = typer.Typer(no_args_is_help=True, help="Items that de-identification was in doubt about.")
assign = typer.Typer(no_args_is_help=True, help="Give an expert the next item, or take one back.")
audit = typer.Typer(no_args_is_help=True, help="The record of every decision.")

Item = Annotated[str, typer.Argument(metavar="ITEM", help="Its key, kind:id, as `held list` shows it.")]
Expert = Annotated[str, typer.Argument(metavar="EXPERT", help="Label Studio's user id.")]


@held.command("list")
def held_list(
    config: Config = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    json: Json = False,
) -> None:
    """Items that are held, the longest first, and why. None of their words is shown."""
    from annotation.store import State

    with stdout_reserved(json), opened(config) as loop:
        found = [
            (entry, loop.store.items.report(entry.key))
            for entry in loop.store.items.page(State.HELD, limit=limit)
        ]
    if json:
        rows = [{"item": e.key, "since": e.since.isoformat(), "why": r.get("held")} for e, r in found]
        document({"held": rows})
        return
    for entry, said in found:
        out.print(
            f"{entry.key}  since {entry.since:%Y-%m-%d %H:%M}  {printable(str(said.get('held')))}",
            markup=False,
        )
    if not found:
        out.print("nothing is held", markup=False)
    else:
        out.print(
            "Read them with `medmax interactions show ID`, then `held release ITEM` or `held refuse ITEM`.",
            style="dim",
            markup=False,
        )


@held.command()
def release(item: Item, config: Config = None, json: Json = False) -> None:
    """You looked: nobody can be recognised. It goes to the experts."""
    from annotation.loop.steps.clean import release as let_go

    with stdout_reserved(json), opened(config) as loop:
        state = let_go(loop, item, person())
    _said(item, state.value, json)


@held.command()
def refuse(item: Item, config: Config = None, json: Json = False) -> None:
    """It must not leave: the item is withdrawn for good."""
    from annotation.store import Because, NotAllowed, State

    with stdout_reserved(json), opened(config) as loop:
        if loop.store.items.get(item).state is not State.HELD:
            raise NotAllowed("only a held item can be refused", field="item")
        loop.store.items.withdraw(item, Because.REFUSED, person())
    _said(item, State.WITHDRAWN.value, json)


def _said(item: str, state: str, json: bool) -> None:
    if json:
        document({"item": item, "state": state})
    else:
        out.print(f"{item} is {state}", markup=False)


@assign.command("next")
def next_(expert: Expert, config: Config = None, json: Json = False) -> None:
    """Reserve the next item for an expert and say where it is."""
    with stdout_reserved(json), opened(config) as loop:
        found = loop.desk.next_item(expert)
        url = loop.studio.url(found.kind, found.task) if found is not None and loop.has_studio else ""
    if json:
        document(
            {
                "reservation": None
                if found is None
                else {
                    "item": found.item,
                    "kind": found.kind.value,
                    "project": found.project,
                    "task": found.task,
                    "adjudication": found.adjudication,
                    "until": found.until.isoformat(),
                    "url": url,
                }
            }
        )
    elif found is None:
        out.print(f"there is nothing for expert {expert}, or a limit is reached", markup=False)
    else:
        what = "decide on" if found.adjudication else "review"
        out.print(
            f"{what} {found.item} until {found.until:%H:%M} UTC: {url or f'task {found.task}'}", markup=False
        )


@assign.command("release")
def release_reservation(expert: Expert, item: Item, config: Config = None, json: Json = False) -> None:
    """Take an item back that an expert will not finish."""
    with stdout_reserved(json), opened(config) as loop:
        done = loop.desk.release(expert, item)
    if json:
        document({"item": item, "released": done})
    else:
        out.print("released" if done else f"expert {expert} does not hold {item}", markup=False)


@audit.command()
def verify(
    known: Annotated[
        list[str] | None,
        typer.Option(
            "--known", metavar="NUMBER:HASH", help="A head that was kept elsewhere; may be repeated."
        ),
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Whether the record is what was written. Exit status 1 where an entry was changed, removed or cut off."""
    from annotation.store.audit import Head

    heads = []
    for text in known or ():
        number, colon, digest = text.partition(":")
        if not colon or not number.isdecimal():
            raise typer.BadParameter("must be NUMBER:HASH", param_hint="--known")
        heads.append(Head(int(number), digest))
    with stdout_reserved(json), opened(config) as loop:
        found = loop.store.audit.verify(heads)
        head = loop.store.audit.head()
    ok = found.broken_at is None
    if json:
        document(
            {
                "ok": ok,
                "entries": found.entries,
                "broken_at": found.broken_at,
                "head": f"{head.number}:{head.hash}",
            }
        )
    elif ok:
        out.print(
            f"{found.entries:,} entries are what was written; head {head.number}:{head.hash}", markup=False
        )
    else:
        out.print(f"entry {found.broken_at} was changed, removed or cut off", markup=False)
    if not ok:
        raise typer.Exit(1)
