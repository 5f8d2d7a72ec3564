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

from services import metrics
from services.errors import MedMaxError
from services.llm.engine import EngineStats
from tests.support.chart import CHART, ROOT, Object, of_kind, rendered

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
    """Names under which `services/metrics.py` exports."""
    assert metrics.ENGINE
    endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    return {
        family.name + ending
        for family in REGISTRY.collect()
        if family.name.startswith("medmax_")
        for ending in endings[family.type]
    }


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
    (pod_monitor,) = of_kind(rendered("multi-gpu-tp4"), "PodMonitor")
    (service_monitor,) = of_kind(rendered("airgapped"), "ServiceMonitor")
    for endpoints in (pod_monitor["spec"]["podMetricsEndpoints"], service_monitor["spec"]["endpoints"]):
        assert [each["port"] for each in endpoints] == ["exporter", "metrics"]
        assert endpoints[0]["authorization"]["credentials"]["key"] == "api-key"
    (metrics_service,) = [
        each
        for each in of_kind(rendered("airgapped"), "Service")
        if each["metadata"]["name"] == "medmax-metrics"
    ]
    chosen = service_monitor["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= metrics_service["metadata"]["labels"].items()


def test_dashboards_are_whole() -> None:
    boards = [
        json.loads(text)
        for each in of_kind(rendered("multi-gpu-tp4"), "ConfigMap")
        for key, text in each["data"].items()
        if key.endswith(".json")
    ]
    assert len(boards) == 2
    assert len({board["uid"] for board in boards}) == 2
    for board in boards:
        assert {each["name"] for each in board["templating"]["list"]} == {"datasource", "namespace"}
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
        assert len(places) == len(ids)
