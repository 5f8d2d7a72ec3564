"""`medmax review gold`: tasks with a known verdict, mixed in among the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annotation.commands.common import Config, opened, person
from services.commands.output import Json, document, out, stdout_reserved

gold = typer.Typer(
    no_args_is_help=True, help="Tasks whose right verdict is known; they tell who is reliable."
)


@gold.command()
def add(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="One JSON object a line; docs/review.md shows one.")
    ],
    looked: Annotated[
        bool,
        typer.Option("--looked", help="You looked at those in doubt: nobody can be recognised in them."),
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Take gold items in; identifiers are removed first, and one in doubt stops all. Those that are there stay as they are."""
    from annotation.core import Reason
    from annotation.loop.gold import read
    from annotation.store import State, item_key
    from services.errors import InvalidInput, NotFound

    added, known = [], []
    with stdout_reserved(json), opened(config) as loop:
        cleaned = []
        for number, item in read(file, loop.base):
            found = loop.deidentifier.clean(item)
            if found.held is not None and not looked:
                raise InvalidInput(
                    f"in doubt: {found.held}. Look at it, and repeat with --looked", field=f"line {number}"
                )
            if any(not picture.data for picture in found.item.pictures):
                raise InvalidInput("a picture cannot be shown", field=f"line {number}")
            cleaned.append(found)
        for each in cleaned:
            key = item_key(each.item.id, each.item.kind)
            try:
                there = loop.store.items.get(key)
            except NotFound:
                loop.store.items.add_gold(each.item, person())
                added.append(key)
                continue
            if there.reason is not Reason.GOLD or there.state is State.WITHDRAWN:
                raise InvalidInput(f"{key} is taken or was removed: choose another id", field="id")
            known.append(key)
    removed = sum(sum(each.report.counts.values()) for each in cleaned)
    if json:
        document({"added": added, "known": known, "identifiers_removed": removed})
        return
    out.print(
        f"{len(added)} gold items added, {len(known)} were there; {removed} identifiers removed", markup=False
    )


@gold.command("list")
def list_(config: Config = None, json: Json = False) -> None:
    """Gold items, where they are, and how many experts did them. Their verdicts are not shown."""
    rows = []
    with stdout_reserved(json), opened(config) as loop:
        after = None
        while page := loop.store.items.gold_page(after):
            for entry in page:
                rows.append(
                    {
                        "item": entry.key,
                        "state": entry.state.value,
                        "speciality": entry.speciality,
                        "done": len(loop.store.annotations.of(entry.key)),
                    }
                )
            after = page[-1]
    if json:
        document({"gold": rows})
        return
    for row in rows:
        out.print(f"{row['item']}  {row['state']}  {row['speciality']}  done by {row['done']}", markup=False)
    if not rows:
        out.print("no gold items: `medmax review gold add FILE`", markup=False)


@gold.command()
def remove(
    item: Annotated[str, typer.Argument(metavar="ITEM", help="Its key, kind:id, as `gold list` shows it.")],
    config: Config = None,
    json: Json = False,
) -> None:
    """Take a gold item out for good; its task leaves Label Studio, and what experts said of it no longer counts."""
    from annotation.core import Reason
    from annotation.store import Because, NotAllowed

    with stdout_reserved(json), opened(config) as loop:
        if loop.store.items.get(item).reason is not Reason.GOLD:
            raise NotAllowed("is not gold", field="item")
        loop.store.items.withdraw(item, Because.REFUSED, person())
    if json:
        document({"item": item, "state": "withdrawn"})
    else:
        out.print(f"{item} is withdrawn", markup=False)
