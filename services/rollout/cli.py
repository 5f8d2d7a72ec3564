"""Roll a model out: plan, start, watch, go back; in a cluster or on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.commands.output import Json, document, out, printable, say
from services.errors import InvalidInput, NotFound
from services.rollout import options as o
from services.rollout import show
from services.rollout.conductor import Conductor
from services.rollout.keeping import Keeper
from services.rollout.limits import Limits
from services.rollout.place import GATEWAY, METRICS, PROMETHEUS, SELECTOR, Place, evidence, place
from services.rollout.planning import Plan, check, known_former, version
from services.rollout.planning import plan as make_plan
from services.rollout.record import Phase, Rollout, person
from services.rollout.version import Change

app = typer.Typer(no_args_is_help=True, help=__doc__)
POLL_S = 5.0
_D = o.DEFAULTS
Poll = Annotated[float, typer.Option("--poll-s", min=0.05, max=60, hidden=True)]
Last = Annotated[int, typer.Option("--last", min=1, max=10_000, help="Events to show.")]


@app.callback()
def _group() -> None:
    """Roll a model out: plan, start, watch, go back; in a cluster or on this machine."""


def _command(act: bool) -> Any:
    """`plan` and `start` take the same options."""

    def command(
        model: o.Model,
        model_id: o.ModelId = None,
        vqgan: o.Vqgan = None,
        digest: o.Digest = "",
        image: o.Images = None,
        env: o.Env = None,
        why: o.Why = "",
        force: o.Force = False,
        again: o.Again = False,
        rayservice: o.RayServiceName = "",
        namespace: o.Namespace = "",
        context: o.Context = "",
        application: o.Application = "medmax",
        gateway: o.Gateway = "",
        metrics: o.Metrics = None,
        prometheus: o.Prometheus = "",
        selector: o.Selector = "",
        health_only: o.HealthOnly = False,
        ready_s: o.ReadyS = _D.ready_s,
        settle_s: o.SettleS = _D.settle_s,
        baseline_s: o.BaselineS = _D.baseline_s,
        window_s: o.WindowS = _D.window_s,
        min_requests: o.MinRequests = _D.min_requests,
        max_error_ratio: o.MaxErrorRatio = _D.max_error_ratio,
        max_error_increase: o.MaxErrorIncrease = _D.max_error_increase,
        max_first_token_s: o.MaxFirstTokenS = _D.max_first_token_s,
        max_first_token_factor: o.MaxFirstTokenFactor = _D.max_first_token_factor,
        undecided: o.Undecided = _D.undecided,
        poll_s: Poll = POLL_S,
        as_json: Json = False,
    ) -> None:
        limits = Limits.of(
            ready_s=ready_s,
            settle_s=settle_s,
            baseline_s=baseline_s,
            window_s=window_s,
            min_requests=min_requests,
            max_error_ratio=max_error_ratio,
            max_error_increase=max_error_increase,
            max_first_token_s=max_first_token_s,
            max_first_token_factor=max_first_token_factor,
            undecided=undecided,
        )
        images, variables = _pairs("image", image), _pairs("env", env)
        where = place(rayservice, namespace, context, application, gateway, say)
        former = where.target.read().version
        change = Change(version(former, model, model_id, vqgan, digest), images, dict(variables))
        sources = {GATEWAY: [gateway], METRICS: metrics or [], PROMETHEUS: [prometheus], SELECTOR: [selector]}
        given = {name: [each for each in urls if each] for name, urls in sources.items()}
        made = make_plan(where, change, limits, given, person(), why, force, health_only)
        evidence(made.rollout.sources, limits.window_s)  # a wrong address is found before anything begins
        if act:
            _finish(where, _start(made, again, poll_s), as_json)
        elif as_json:
            document(made.to_json())
        else:
            show.plan(made)

    return command


app.command("plan", help="Show the exact change and what will be checked; change nothing.")(
    _command(act=False)
)
app.command(
    "start",
    help="Change the model, watch it, and promote it or go back. Run again after a kill, it goes on where it was.",
)(_command(act=True))


@app.command()
def status(
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on with an unfinished roll-out that nobody conducts.")
    ] = False,
    rayservice: o.RayServiceName = "",
    namespace: o.Namespace = "",
    context: o.Context = "",
    application: o.Application = "medmax",
    gateway: o.Gateway = "",
    poll_s: Poll = POLL_S,
    as_json: Json = False,
) -> None:
    """Show what serves and how far the last roll-out is."""
    where = place(rayservice, namespace, context, application, gateway, say)
    current = where.ledger.read().current
    if watch:
        if current is None:
            raise NotFound("there was no roll-out yet")
        current = _conductor(where, current, poll_s).resume()
    state = where.target.read()
    if as_json:
        document(show.status_json(where, state, current))
    else:
        show.status(where, state, current)
    if watch and current and current.phase is not Phase.PROMOTED:
        raise typer.Exit(1)


@app.command()
def abort(
    why: o.Why = "",
    rayservice: o.RayServiceName = "",
    namespace: o.Namespace = "",
    context: o.Context = "",
    application: o.Application = "medmax",
    gateway: o.Gateway = "",
    poll_s: Poll = POLL_S,
    as_json: Json = False,
) -> None:
    """Return to the former version, whoever conducts the roll-out."""
    where = place(rayservice, namespace, context, application, gateway, say)
    current = where.ledger.read().current
    if current is None:
        raise NotFound("there was no roll-out yet")
    ended = _conductor(where, current, poll_s).abort(person(), why)
    _finish(where, ended, as_json, wanted=Phase.ABORTED)


@app.command()
def history(
    last: Last = 20,
    rayservice: o.RayServiceName = "",
    namespace: o.Namespace = "",
    context: o.Context = "",
    application: o.Application = "medmax",
    gateway: o.Gateway = "",
    as_json: Json = False,
) -> None:
    """Show what was changed, when, by whom, why, and what came of it; the latest last."""
    where = place(rayservice, namespace, context, application, gateway, say)
    events = where.ledger.read().history[-last:]
    if as_json:
        document({"target": where.target.name, "events": [event.to_json() for event in events]})
    else:
        show.history(events)


def _start(made: Plan, again: bool, poll_s: float) -> Rollout | None:
    """The roll-out at its end; None where there is nothing to do."""
    where = made.place
    current = where.ledger.read().current
    if current and not current.phase.over:
        return _conductor(where, current, poll_s).start(made.rollout)
    if made.nothing:
        return None
    check(made, None if again else current)
    judged_by = evidence(made.rollout.sources, made.rollout.limits.window_s)
    return _conductor(where, made.rollout, poll_s).start(known_former(made.rollout, judged_by))


def _conductor(where: Place, rollout: Rollout, poll_s: float) -> Conductor:
    judged_by = evidence(rollout.sources, rollout.limits.window_s)
    return Conductor(where.target, Keeper(where.ledger, where.lock, say), judged_by, poll_s)


def _finish(where: Place, ended: Rollout | None, as_json: bool, wanted: Phase = Phase.PROMOTED) -> None:
    if as_json:
        document(show.rollout_json(ended) if ended else {"outcome": "unchanged"})
    elif ended:
        show.rollout(ended)
    else:
        out.print(printable(f"{where.target.name} serves this already; nothing was changed"), markup=False)
    if ended and ended.phase is not wanted:
        raise typer.Exit(1)


def _pairs(field: str, given: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for each in given or []:
        name, sign, value = each.partition("=")
        if not sign or name in pairs:
            raise InvalidInput("must be NAME=VALUE, each name once", field=field)
        pairs[name] = value
    return pairs
