"""Arrows that network policies draw for some values alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.chart import Object, merge, of_kind, pod_templates, read, render, rendered

CLIENTS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
TRITON = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "triton"}}}


def _arrows(objects: list[Object], component: str, direction: str) -> list[tuple[Any, tuple[int, ...]]]:
    """Peer and ports of every rule for the pods of a component."""
    (labels,) = [
        template["metadata"]["labels"]
        for _, template in pod_templates(objects)
        if template["metadata"]["labels"]["app.kubernetes.io/component"] == component
    ]
    return [
        (peer, tuple(port["port"] for port in rule.get("ports", [])))
        for policy in of_kind(objects, "NetworkPolicy")
        if policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        for rule in policy["spec"].get(direction, [])
        for peer in rule["from" if direction == "ingress" else "to"]
    ]


def test_browsers_reach_the_review_loop_where_its_address_is_known() -> None:
    off = {"review": {"enabled": True}}
    assert CLIENTS not in [peer for peer, _ in _arrows(render(off), "review", "ingress")]
    on = merge(off, {"review": {"publicUrl": "https://review.example.org", "port": 9191}})
    assert (CLIENTS, (9191,)) in _arrows(render(on), "review", "ingress")


def test_the_review_loop_reaches_a_label_studio_elsewhere_where_its_address_is_given() -> None:
    off: Object = {
        "review": {"enabled": True, "config": {"labelstudio": {"url": "https://label.example.org"}}}
    }
    on = merge(off, {"review": {"egress": {"cidrs": ["192.0.2.7/32"], "port": 8443}}})
    added = [
        arrow
        for arrow in _arrows(render(on), "review", "egress")
        if arrow not in _arrows(render(off), "review", "egress")
    ]
    assert added == [({"ipBlock": {"cidr": "192.0.2.7/32"}}, (8443,))]


TRITON_TOKENIZER: Object = {
    "settings": {"tokenizer_backend": "triton", "tokenizer_triton_address": "triton.triton.svc:8001"},
    "networkPolicy": {"triton": {"namespace": {"kubernetes.io/metadata.name": "triton"}}},
}


def test_pods_that_call_a_triton_server_reach_it_and_no_other_pod_does() -> None:
    values = merge(TRITON_TOKENIZER, {"services": {"decoder": {"group": "llm"}}})
    objects = render(values)
    components = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]
        for _, template in pod_templates(objects)
    }
    reached = {name for name in components if (TRITON, (8001,)) in _arrows(objects, name, "egress")}
    assert reached == {"ray-codec"}
    both = merge(values, {"settings": {"decoder_backend": "triton", "decoder_triton_address": "[fd00::1]:9"}})
    assert (TRITON, (9,)) in _arrows(render(both), "ray-llm", "egress")


def test_the_port_of_triton_s_pods_may_be_another_than_its_service_s() -> None:
    values = merge(TRITON_TOKENIZER, {"networkPolicy": {"triton": {"port": 9001, "cidrs": ["10.9.0.0/24"]}}})
    found = _arrows(render(values), "ray-codec", "egress")
    assert (TRITON, (9001,)) in found
    assert ({"ipBlock": {"cidr": "10.9.0.0/24"}}, (9001,)) in found


def test_there_is_no_way_to_a_triton_server_that_nobody_uses(objects: list[Object]) -> None:
    assert not [each for each in of_kind(objects, "NetworkPolicy") if "triton" in each["metadata"]["name"]]
    unused = {"networkPolicy": TRITON_TOKENIZER["networkPolicy"]}
    assert render(unused) == rendered("default")


@pytest.mark.parametrize("name", ["tokenizer", "decoder"])
def test_a_service_that_uses_triton_needs_no_gpu_of_its_own(name: str) -> None:
    settings = {f"{name}_backend": "triton", f"{name}_triton_address": "triton:8001"}
    values = merge(read("single-gpu"), TRITON_TOKENIZER)
    values = merge(values, {"settings": settings, "services": {name: {"gpus": 0}}})
    assert render(values)
