"""The ways from outside to the review loop's controller."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from annotation.labelstudio.pictures import PATH
from annotation.loop.server import PAGE, create_app
from tests.support.chart import Object, merge, of_kind, pod_spec, render
from tests.unit.annotation.loop_samples import loop_in


def _routed(objects: list[Object]) -> dict[str, set[str]]:
    """Host → paths that lead to the review loop, of Ingresses and HTTPRoutes."""
    found: dict[str, set[str]] = {}
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                if path["backend"]["service"]["name"] == "medmax-review":
                    assert path["backend"]["service"]["port"] == {"name": "http"}
                    found.setdefault(rule["host"], set()).add(path["path"])
    for route in of_kind(objects, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            if rule["backendRefs"] == [{"name": "medmax-review", "port": 9090}]:
                paths = {match["path"]["value"] for match in rule["matches"]}
                found.setdefault(route["spec"]["hostnames"][0], set()).update(paths)
    return found


OUTSIDE: list[Object] = [
    {"ingress": {"enabled": True}},
    {"gateway": {"enabled": True, "className": "istio"}},
]


@pytest.mark.parametrize("way", OUTSIDE, ids=["ingress", "gateway"])
def test_browsers_reach_pictures_and_label_studio_elsewhere_webhooks_too(way: Object) -> None:
    studio = {"labelStudio": {"enabled": True, "database": {"existingSecret": "x"}}}
    review = {"review": {"enabled": True}}
    url = {"review": {"publicUrl": "https://review.example.org/"}}
    pictures, every = {PATH}, {PATH, "/labelstudio/webhook", "/labelstudio/drafts"}
    assert _routed(render(way)) == {}
    assert _routed(render(merge(way, review))) == {}, "nobody said where"
    assert _routed(render(merge(way, studio))) == {}, "there is no controller"
    inside = render(merge(merge(way, studio), review))
    assert _routed(inside) == {"label.example.org": pictures}
    own = render(merge(merge(merge(way, studio), review), url))
    assert _routed(own) == {"review.example.org": pictures}
    assert _routed(render(merge(merge(way, review), url))) == {"review.example.org": every}
    for objects in (inside, own):
        for gateway in of_kind(objects, "Gateway"):
            hosts = [each["hostname"] for each in gateway["spec"]["listeners"]]
            assert len(hosts) == len(set(hosts))
            assert set(_routed(objects)) <= set(hosts)


def test_what_is_routed_is_what_the_controller_serves_and_not_its_pages(tmp_path: Path) -> None:
    values = {
        "review": {"enabled": True, "publicUrl": "https://review.example.org"},
        "ingress": {"enabled": True},
    }
    (paths,) = _routed(render(values)).values()
    asked = {
        PATH: ("GET", f"{PATH}/{'0' * 64}"),
        "/labelstudio/webhook": ("POST", "/labelstudio/webhook"),
        "/labelstudio/drafts": ("POST", "/labelstudio/drafts/setup"),
    }
    assert paths == asked.keys()
    loop = loop_in(tmp_path, assistant={"url": "local"})
    try:
        client = TestClient(create_app(loop))
        answers = {path: client.request(*request) for path, request in asked.items()}
    finally:
        loop.close()
    # Each refuses a stranger in its own words; a path that nobody serves has Starlette's.
    assert {path: answer.status_code for path, answer in answers.items()} == {
        PATH: 404,
        "/labelstudio/webhook": 401,
        "/labelstudio/drafts": 401,
    }
    assert all("error" in answer.json() for answer in answers.values())
    assert not [each for each in (PAGE, "/healthz", "/metrics") for path in paths if each.startswith(path)]


def test_an_address_on_this_machine_is_not_routed() -> None:
    local = {"review": {"enabled": True, "publicUrl": "http://localhost:9090"}, "ingress": {"enabled": True}}
    objects = render(local)
    assert _routed(objects) == {}
    (container,) = pod_spec(objects, "Deployment", "medmax-review")["containers"]
    variable = {"name": "MEDMAX_REVIEW_LABELSTUDIO__PUBLIC_URL", "value": "http://localhost:9090"}
    assert variable in container["env"]
