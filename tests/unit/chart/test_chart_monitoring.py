"""Alerts and dashboards ask for metrics that exist, and every alert has a runbook."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import promql_parser
import pytest
import ray
from prometheus_client import REGISTRY

from annotation.core import Decision
from annotation.loop import metrics as review
from annotation.loop.steps import STEPS
from annotation.store import State
from services import metrics, tracing_settings
from services.errors import MedMaxError
from services.llm.engine import EngineStats
from tests.support.chart import CHART, ROOT, Object, merge, of_kind, read, render, rendered

RUNBOOKS = ROOT / "docs" / "runbooks"
MONITORED = ("multi-gpu-tp4", "airgapped")
# Gauges and counters that Ray's code registers; its exporter puts `ray_` before and `_total` behind counters.
RAYS = {
    "ray_serve_autoscaling_target_replicas": "serve/_private/deployment_state.py",
    "ray_serve_deployment_replica_healthy": "serve/_private/deployment_state.py",
    "ray_serve_deployment_queued_queries": "dashboard/modules/metrics/dashboards/serve_deployment_dashboard_panels.py",
    "ray_serve_replica_processing_queries": "dashboard/modules/metrics/dashboards/serve_deployment_dashboard_panels.py",
    "ray_node_manager_unexpected_worker_failure_total": "dashboard/modules/metrics/dashboards/default_dashboard_panels.py",
    "ray_memory_manager_worker_eviction_total": "dashboard/modules/metrics/dashboards/default_dashboard_panels.py",
    "ray_node_disk_usage": "dashboard/modules/metrics/dashboards/default_dashboard_panels.py",
    "ray_node_disk_free": "dashboard/modules/metrics/dashboards/default_dashboard_panels.py",
    "ray_node_gpus_utilization": "dashboard/modules/metrics/dashboards/default_dashboard_panels.py",
    "ray_node_gram_used": "dashboard/modules/metrics/dashboards/default_dashboard_panels.py",
    "ray_node_mem_used": "dashboard/modules/reporter/reporter_agent.py",
    "ray_node_mem_total": "dashboard/modules/reporter/reporter_agent.py",
}


@functools.cache
def ours() -> set[str]:
    """Names under which `services/metrics.py` and `annotation/loop/metrics.py` export."""
    assert metrics.ENGINE
    endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    return {
        family.name + ending
        for family in (*REGISTRY.collect(), *review.OWN.collect())
        if family.name.startswith("medmax_")
        for ending in endings[family.type]
    } | review.GAUGES.keys()


def alerts() -> list[Object]:
    rules = of_kind(rendered(MONITORED[0]), "PrometheusRule")
    return [rule for each in rules for group in each["spec"]["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Where each query stands, and the query."""
    yield from ((rule["alert"], rule["expr"]) for rule in alerts())
    for file in sorted((CHART / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{file.name}: {panel['title']}", target["expr"]


def selectors(node: object) -> Iterator[promql_parser.VectorSelector]:
    """Every vector selector below `node`."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vs", "vector_selector", "args"):
        below = getattr(node, name, None)
        for each in below if isinstance(below, list) else [below]:
            if each is not None and type(each).__module__.startswith("promql_parser"):
                yield from selectors(each)


CASES = [pytest.param(expr, id=place) for place, expr in expressions()]


@pytest.mark.parametrize("expr", CASES)
def test_a_query_asks_for_metrics_that_exist(expr: str) -> None:
    found = list(selectors(promql_parser.parse(expr)))
    assert found
    codes = {each.code for each in _tree(MedMaxError)} | {"ok", "cancelled"}
    figures = {field.name for field in fields(EngineStats)}
    for each in found:
        assert each.name in ours() | set(RAYS), each.name
        labels = {matcher.name: matcher.value for matcher in each.matchers.matchers}
        assert "namespace" in labels, "another release's figures would count"
        assert set(labels.get("code", "ok").split("|")) <= codes
        assert labels.get("figure", "blocks") in figures
        assert labels.get("service", "gateway") in {"gateway", "tokenizer", "llm", "decoder"}
        assert set(labels.get("state", "held").split("|")) <= set(State)
        assert labels.get("bound", "most") in {"least", "most"}
        assert labels.get("step", "publish") in STEPS
        assert labels.get("decision", "edit") in set(Decision)


def _tree(cls: type[MedMaxError]) -> Iterator[type[MedMaxError]]:
    yield cls
    for each in cls.__subclasses__():
        yield from _tree(each)


@pytest.mark.parametrize("name", RAYS)
def test_ray_exports_what_we_list(name: str) -> None:
    source = (Path(ray.__file__).parent / RAYS[name]).read_text()
    assert re.search(rf"\b{name}\b", source) or f'"{name.removeprefix("ray_")}"' in source


@pytest.mark.parametrize("name", MONITORED)
def test_every_alert_has_its_runbook(name: str) -> None:
    for each in of_kind(rendered(name), "PrometheusRule"):
        for group in each["spec"]["groups"]:
            for rule in group["rules"]:
                base, _, file = rule["annotations"]["runbook_url"].rpartition("/")
                assert base.endswith("/runbooks")
                text = (RUNBOOKS / file).read_text()
                assert text.startswith(f"# {rule['alert']}\n")
                assert {"## Means", "## Look", "## Do"} <= set(text.splitlines())
                assert rule["labels"]["severity"] in {"critical", "warning"}


def test_no_runbook_is_left_over() -> None:
    assert {file.stem for file in RUNBOOKS.glob("MedMax*.md")} == {rule["alert"] for rule in alerts()}


def test_scrapes_find_the_ports_and_show_a_key() -> None:
    by_service = render(merge(read("airgapped"), {"review": {"enabled": True}}))
    for objects, kind, endpoints in (
        (rendered("multi-gpu-tp4"), "PodMonitor", "podMetricsEndpoints"),
        (by_service, "ServiceMonitor", "endpoints"),
    ):
        monitors = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, kind)}
        assert monitors.keys() == {"medmax", "medmax-review"}
        serving, (review_loop,) = (monitors[name][endpoints] for name in ("medmax", "medmax-review"))
        assert [each["port"] for each in serving] == ["exporter", "metrics"]
        assert review_loop["port"] == "http"
        for each in (serving[0], review_loop):
            assert each["authorization"]["credentials"]["key"] == "api-key"
    services = {each["metadata"]["name"]: each for each in of_kind(by_service, "Service")}
    for monitor, service in (("medmax", "medmax-metrics"), ("medmax-review", "medmax-review")):
        chosen = monitors[monitor]["selector"]["matchLabels"]
        assert chosen.items() <= services[service]["metadata"]["labels"].items()
        ports = {port["name"] for port in services[service]["spec"]["ports"]}
        assert {each["port"] for each in monitors[monitor]["endpoints"]} <= ports


def test_traces_are_off_until_a_collector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (off,) = [
        each for each in of_kind(rendered("single-gpu"), "ConfigMap") if "MEDMAX_HOST" in each.get("data", {})
    ]
    assert not [key for key in off["data"] if key.startswith("OTEL_")]
    tracing = {"endpoint": "http://collector.monitoring:4318", "ratio": 0.1}
    objects = render(merge(read("single-gpu"), {"monitoring": {"tracing": tracing}}))
    (on,) = [each for each in of_kind(objects, "ConfigMap") if "MEDMAX_HOST" in each.get("data", {})]
    for key, value in on["data"].items():
        if key.startswith("OTEL_"):
            monkeypatch.setenv(key, value)
    assert tracing_settings.check(), "what the chart sets is what the services read"
    assert on["data"]["OTEL_TRACES_SAMPLER_ARG"] == "0.1"
    (policy,) = [
        each for each in of_kind(objects, "NetworkPolicy") if each["metadata"]["name"] == "medmax-ray"
    ]
    ways = [
        rule
        for rule in policy["spec"]["egress"]
        if {"protocol": "TCP", "port": 4318} in rule.get("ports", [])
    ]
    assert len(ways) == 1


def test_dashboards_are_whole() -> None:
    boards = [
        json.loads(text)
        for each in of_kind(rendered("multi-gpu-tp4"), "ConfigMap")
        for key, text in each.get("data", {}).items()
        if key.endswith(".json")
    ]
    assert len(boards) == 3
    assert len({board["uid"] for board in boards}) == 3
    for board in boards:
        assert {each["name"] for each in board["templating"]["list"]} == {"datasource", "namespace"}
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
        assert len(places) == len(ids)
