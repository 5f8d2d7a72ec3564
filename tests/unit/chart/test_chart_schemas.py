"""Every values file gives objects that API servers and operators accept."""

from __future__ import annotations

import copy

import pytest

from tests.support.chart import CHART, CRD, Object, of_kind, pod_templates, read, render, rendered, title
from tests.support.kubernetes import VERSIONS, complaints, rayservice_complaints

CUSTOM = {"ray.io", "monitoring.coreos.com", "gateway.networking.k8s.io"}
INFORMATION = 1
needs_crd = pytest.mark.skipif(
    not CRD.exists(), reason=f"KubeRay's CRD is not beside the checkout ({CRD.name})"
)


def _custom(each: Object) -> bool:
    return each["apiVersion"].split("/")[0] in CUSTOM


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_in(version: str, objects: list[Object]) -> None:
    bad = {
        title(each): found for each in objects if not _custom(each) if (found := complaints(each, version))
    }
    assert not bad


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_the_pods_that_kuberay_makes_are_valid_in(version: str, objects: list[Object]) -> None:
    for name, template in pod_templates(of_kind(objects, "RayService")):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
        assert complaints(pod, version) == [], name


def test_an_unknown_field_does_not_pass(objects: list[Object]) -> None:
    broken = copy.deepcopy(of_kind(objects, "NetworkPolicy")[0])
    broken["spec"]["policyType"] = ["Ingress"]
    assert complaints(broken, VERSIONS[-1])


@needs_crd
def test_the_rayservice_is_what_kuberay_knows(objects: list[Object]) -> None:
    (service,) = of_kind(objects, "RayService")
    assert rayservice_complaints(service) == []


@needs_crd
def test_kuberays_schema_catches_a_misspelt_field() -> None:
    broken = copy.deepcopy(of_kind(rendered("default"), "RayService")[0])
    broken["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParam"] = {}
    assert rayservice_complaints(broken)


def test_names_are_unique_and_labels_say_whose_they_are(objects: list[Object]) -> None:
    names = [(each["apiVersion"], each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names))
    for each in objects:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "medmax", title(each)
        assert len(each["metadata"]["name"]) <= 63


def test_a_long_release_name_still_fits() -> None:
    for each in render(read("multi-gpu-tp4"), name="a" * 53):
        # Pods of a StatefulSet have a label of its name and eleven characters more.
        assert len(each["metadata"]["name"]) <= 52, title(each)


def test_the_chart_lints() -> None:
    import helm_python

    found = helm_python.lint(str(CHART))
    messages = found["messages"] if isinstance(found, dict) else found
    assert not [each for each in messages if each["severity"] > INFORMATION]
