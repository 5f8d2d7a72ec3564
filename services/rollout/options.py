"""Options of `medmax rollout`."""

from __future__ import annotations

from typing import Annotated

import typer

from services.rollout.limits import Limits

DEFAULTS = Limits()
WHERE, WHAT, EVIDENCE, LIMITS = "Where", "What", "What it is judged by", "Limits"


def _option(*names: str, panel: str, help: str, env: str | None = None, metavar: str | None = None) -> object:
    return typer.Option(
        *names, rich_help_panel=panel, help=help, envvar=env, metavar=metavar, show_default=not metavar
    )


RayServiceName = Annotated[
    str,
    _option(
        "--rayservice",
        panel=WHERE,
        metavar="NAME",
        env="MEDMAX_ROLLOUT_RAYSERVICE",
        help="RayService to change. Without it: the `medmax serve` of this machine.",
    ),
]
Namespace = Annotated[
    str,
    _option(
        "--namespace",
        "-n",
        panel=WHERE,
        metavar="NAME",
        env="MEDMAX_ROLLOUT_NAMESPACE",
        help="Its namespace. Default: the context's, or the pod's own.",
    ),
]
Context = Annotated[
    str, _option("--context", panel=WHERE, metavar="NAME", help="Context of the kubeconfig (KUBECONFIG).")
]
Application = Annotated[str, _option("--application", panel=WHERE, help="Application of Serve.")]
Gateway = Annotated[
    str,
    _option(
        "--gateway",
        panel=EVIDENCE,
        metavar="URL",
        env="MEDMAX_ROLLOUT_GATEWAY",
        help="Gateway that is asked which weights answer (key: MEDMAX_API_KEY). Without --rayservice: the `medmax "
        "serve` to change, whose /metrics is read as well.",
    ),
]
Metrics = Annotated[
    list[str] | None,
    _option(
        "--metrics",
        panel=EVIDENCE,
        metavar="URL",
        help="Page of metrics of one gateway pod; may be repeated, one for each. Never one behind a load balancer.",
    ),
]
Prometheus = Annotated[
    str,
    _option(
        "--prometheus",
        panel=EVIDENCE,
        metavar="URL",
        env="MEDMAX_ROLLOUT_PROMETHEUS",
        help="Prometheus that scrapes the gateways (token: MEDMAX_PROMETHEUS_TOKEN). Best where several pods answer.",
    ),
]
Selector = Annotated[
    str,
    _option(
        "--selector",
        panel=EVIDENCE,
        metavar="LABELS",
        help='Labels of our series there. Default: namespace="NAMESPACE".',
    ),
]
HealthOnly = Annotated[
    bool, _option("--health-only", panel=EVIDENCE, help="Do not look at requests, only at health.")
]
Model = Annotated[
    str,
    _option(
        "--model", panel=WHAT, metavar="DIR", help="Checkpoint directory, as the serving processes see it."
    ),
]
ModelId = Annotated[
    str | None,
    _option("--model-id", panel=WHAT, metavar="NAME", help="Name for clients. Default: as before."),
]
Vqgan = Annotated[
    str | None,
    _option(
        "--vqgan", panel=WHAT, metavar="FILE", help="Published vqgan.ckpt, where the checkpoint needs it."
    ),
]
Digest = Annotated[
    str,
    _option(
        "--digest",
        panel=WHAT,
        metavar="SHA256",
        help="Over the weights, as `medmax inspect` shows it; the gateway must answer with it. Default: of the "
        "directory, where it can be read here.",
    ),
]
Images = Annotated[
    list[str] | None,
    _option(
        "--image",
        panel=WHAT,
        metavar="GROUP=IMAGE",
        help="Image of a worker group, or of head; a new Ray cluster.",
    ),
]
Env = Annotated[
    list[str] | None,
    _option(
        "--env", panel=WHAT, metavar="NAME=VALUE", help="Variable of the worker groups; a new Ray cluster."
    ),
]
Why = Annotated[
    str, _option("--why", panel=WHAT, metavar="TEXT", help="Kept in the history. No patient data.")
]
Force = Annotated[
    bool,
    _option(
        "--force",
        panel=WHAT,
        help="Begin although what serves is not healthy or breaks an objective: the new version is the cure.",
    ),
]

Again = Annotated[
    bool, _option("--again", panel=WHAT, help="Begin although the last roll-out of this version went back.")
]


def _seconds(name: str, help: str) -> object:
    return _option(name, panel=LIMITS, help=f"Seconds {help}")


ReadyS = Annotated[float, _seconds("--ready-s", "within which it must be ready.")]
SettleS = Annotated[float, _seconds("--settle-s", "for which it must stay so before it counts.")]
BaselineS = Annotated[
    float, _seconds("--baseline-s", "measured before the change, to compare with; 0 = not.")
]
WindowS = Annotated[float, _seconds("--window-s", "watched after it is ready.")]
MinRequests = Annotated[
    int, _option("--min-requests", panel=LIMITS, help="Requests in the window below which nothing is judged.")
]
MaxErrorRatio = Annotated[
    float,
    _option(
        "--max-error-ratio", panel=LIMITS, help="Share of requests that may fail for no fault of the caller."
    ),
]
MaxErrorIncrease = Annotated[
    float,
    _option("--max-error-increase", panel=LIMITS, help="By which that share may grow over the baseline."),
]
MaxFirstTokenS = Annotated[
    float, _option("--max-first-token-s", panel=LIMITS, help="Seconds to the first token, 95th percentile.")
]
MaxFirstTokenFactor = Annotated[
    float, _option("--max-first-token-factor", panel=LIMITS, help="Times the baseline's that it may take.")
]
Undecided = Annotated[
    str,
    _option(
        "--undecided",
        panel=LIMITS,
        help="promote or rollback: what to do after a window with too few requests.",
    ),
]
