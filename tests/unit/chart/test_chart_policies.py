"""What an operator may rely on, whatever the values."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.chart import (
    VALUES,
    Object,
    containers,
    merge,
    of_kind,
    pod_templates,
    read,
    render,
    rendered,
    title,
)

SECRET = re.compile(r"password|token|secret|api[-_]?key", re.IGNORECASE)
JOBS = ("Job/", "CronJob/", "Pod/")


def test_nobody_is_root_and_nobody_may_become_it(objects: list[Object]) -> None:
    for name, template in pod_templates(objects):
        pod = template["spec"]["securityContext"]
        assert pod["runAsNonRoot"] is True, name
        assert pod["runAsUser"] > 0, name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, f"{name}/{container['name']}"
        for shared in ("hostNetwork", "hostPID", "hostIPC"):
            assert shared not in template["spec"], name
        assert all("hostPath" not in volume for volume in template["spec"]["volumes"]), name


def test_the_autoscaler_that_kuberay_adds_is_held_to_the_same(objects: list[Object]) -> None:
    for service in of_kind(objects, "RayService"):
        cluster = service["spec"]["rayClusterConfig"]
        if cluster["enableInTreeAutoscaling"]:
            assert cluster["autoscalerOptions"]["securityContext"]["readOnlyRootFilesystem"] is True
            assert set(cluster["autoscalerOptions"]["resources"]) == {"requests", "limits"}


def test_images_have_a_version(objects: list[Object]) -> None:
    for name, template in pod_templates(objects):
        for container in containers(template):
            image, _, digest = container["image"].partition("@")
            tag = image.rpartition("/")[2].partition(":")[2]
            assert digest or (tag and tag != "latest"), f"{name}/{container['name']}: {container['image']}"


def test_every_container_has_requests_and_limits(objects: list[Object]) -> None:
    for name, template in pod_templates(objects):
        for container in containers(template):
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][kind]), f"{name}/{container['name']}"
        for volume in template["spec"]["volumes"]:
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], f"{name}/{volume['name']}"


def test_what_stays_up_is_probed(objects: list[Object]) -> None:
    for name, template in pod_templates(objects):
        if name.startswith(JOBS):
            continue
        for container in template["spec"]["containers"]:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert container[probe], f"{name}/{container['name']}"


def test_a_model_of_14_gb_has_the_time_to_load(objects: list[Object]) -> None:
    # Probes watch Ray, which is up before weights are read; nothing restarts a pod for a replica that loads.
    for name, template in pod_templates(of_kind(objects, "RayService")):
        ray = template["spec"]["containers"][0]
        assert ray["livenessProbe"]["httpGet"]["path"] == "/api/local_raylet_healthz", name
        assert ray["startupProbe"]["periodSeconds"] * ray["startupProbe"]["failureThreshold"] >= 300, name


def test_a_leaving_pod_has_more_time_than_its_parts_take(objects: list[Object]) -> None:
    for name, template in pod_templates(of_kind(objects, "RayService")):
        if name.endswith("/head"):
            continue
        command = template["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
        seconds = [int(number) for number in re.findall(r"(?:sleep|--seconds) (\d+)", command)]
        assert len(seconds) == 2, name
        assert template["spec"]["terminationGracePeriodSeconds"] > sum(seconds), name


def test_only_who_must_gets_a_token(objects: list[Object]) -> None:
    for account in of_kind(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    with_token = {
        name for name, template in pod_templates(objects) if template["spec"]["automountServiceAccountToken"]
    }
    assert {name for name in with_token if not name.endswith("/head")} <= {"Deployment/medmax-review"}


def test_rights_are_few_and_named(objects: list[Object]) -> None:
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")
    for role in of_kind(objects, "Role"):
        for rule in role["rules"]:
            assert rule["resourceNames"] in (["medmax"], ["medmax-rollout"])
            assert set(rule["verbs"]) <= {"get", "list", "watch", "patch", "update"}
            assert set(rule["resources"]) <= {"rayservices", "configmaps", "leases"}


def test_who_may_roll_out_is_the_review_loop_and_whom_the_values_name() -> None:
    person = {"kind": "User", "name": "ops@example.org"}
    values = merge(read("single-gpu"), {"review": {"enabled": True}, "rollout": {"subjects": [person]}})
    (binding,) = of_kind(render(values), "RoleBinding")
    assert [each["name"] for each in binding["subjects"]] == ["medmax-review", "ops@example.org"]
    off = merge(read("single-gpu"), {"review": {"enabled": True, "rollout": False}})
    assert not of_kind(render(off), "RoleBinding")


def test_secrets_are_never_in_config_maps_nor_in_plain_variables(objects: list[Object]) -> None:
    for config in of_kind(objects, "ConfigMap"):
        if "dashboard" not in config["metadata"]["name"]:
            assert not [key for key in config.get("data", {}) if SECRET.search(key)], title(config)
    for name, template in pod_templates(objects):
        for container in containers(template):
            for variable in container.get("env", []):
                plain = variable["name"] != "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN" and "value" in variable
                assert not (plain and SECRET.search(variable["name"])), f"{name}: {variable['name']}"
                # A password may stand in an address as a reference alone.
                assert not re.search(r"://[^/]*:(?!\$\()[^/@]+@", variable.get("value", "")), name


def test_a_pod_starts_anew_when_what_it_reads_at_start_changes(objects: list[Object]) -> None:
    for name, template in pod_templates(objects):
        if not name.startswith(JOBS):
            assert re.fullmatch(r"[0-9a-f]{64}", template["metadata"]["annotations"]["checksum/config"]), name


def test_ray_and_numba_may_write_where_they_do(objects: list[Object]) -> None:
    (config,) = [
        each for each in of_kind(objects, "ConfigMap") if each["metadata"]["name"].endswith("environment")
    ]
    writable = {"/tmp", "/var/run/medmax", "/dev/shm"}
    for name, template in pod_templates(of_kind(objects, "RayService")):
        ray = template["spec"]["containers"][0]
        assert writable <= {mount["mountPath"] for mount in ray["volumeMounts"]}, name
    for key in (
        "HOME",
        "NUMBA_CACHE_DIR",
        "TRITON_CACHE_DIR",
        "TORCHINDUCTOR_CACHE_DIR",
        "MEDMAX_METRICS_DIR",
    ):
        assert config["data"][key].startswith(("/tmp", "/var/run/medmax"))


def _selects(selector: Object, labels: Object) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def test_a_network_policy_covers_every_pod(objects: list[Object]) -> None:
    policies = of_kind(objects, "NetworkPolicy")
    (deny,) = [each for each in policies if each["metadata"]["name"] == "medmax-default-deny"]
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny["spec"]
    for name, template in pod_templates(objects):
        labels = template["metadata"]["labels"]
        covering = [each for each in policies if _selects(each["spec"]["podSelector"], labels)]
        assert deny in covering, name
        assert len(covering) > 1, f"{name} can do nothing"


def test_no_arrow_comes_from_everywhere(objects: list[Object]) -> None:
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"], title(policy)
            assert all(_narrow(peer) for peer in rule["from"]), title(policy)
        for rule in policy["spec"].get("egress", []):
            assert rule["to"], title(policy)


def _narrow(peer: Object) -> bool:
    return any((peer.get(kind) or {}).get("matchLabels") for kind in ("podSelector", "namespaceSelector"))


def test_only_ray_talks_on_every_port(objects: list[Object]) -> None:
    for policy in of_kind(objects, "NetworkPolicy"):
        for direction in ("ingress", "egress"):
            for rule in policy["spec"].get(direction, []):
                assert "ports" in rule or policy["metadata"]["name"] == "medmax-ray", title(policy)


def test_services_point_at_pods_that_have_the_port(objects: list[Object]) -> None:
    templates = list(pod_templates(objects))
    for service in of_kind(objects, "Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        chosen = [each for _, each in templates if _selects(selector, each["metadata"]["labels"])]
        assert chosen, title(service)
        for template in chosen:
            names = {
                port["name"] for each in template["spec"]["containers"] for port in each.get("ports", [])
            }
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= names, title(service)


def test_a_budget_leaves_room_for_a_node_drain(objects: list[Object]) -> None:
    budgets = of_kind(objects, "PodDisruptionBudget")
    for name, template in pod_templates(of_kind(objects, "RayService")):
        found = [
            each for each in budgets if _selects(each["spec"]["selector"], template["metadata"]["labels"])
        ]
        assert len(found) == (0 if name.endswith("/head") else 1), name
        assert all(each["spec"]["maxUnavailable"] >= 1 for each in found)


def test_what_is_mounted_exists(objects: list[Object]) -> None:
    claims = {each["metadata"]["name"] for each in of_kind(objects, "PersistentVolumeClaim")}
    for name, template in pod_templates(objects):
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        volumes |= _claim_templates(objects, name)
        for container in containers(template):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name
        for volume in template["spec"]["volumes"]:
            claim: Any = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in claims or claim == "medmax-weights", name


def _claim_templates(objects: list[Object], name: str) -> set[str]:
    found = [each for each in of_kind(objects, "StatefulSet") if title(each) == name]
    return {claim["metadata"]["name"] for each in found for claim in each["spec"]["volumeClaimTemplates"]}


def test_traffic_from_outside_is_encrypted(objects: list[Object]) -> None:
    for ingress in of_kind(objects, "Ingress"):
        hosts = {rule["host"] for rule in ingress["spec"]["rules"]}
        assert hosts == {host for entry in ingress["spec"]["tls"] for host in entry["hosts"]}
        assert all(entry["secretName"] for entry in ingress["spec"]["tls"])
    for gateway in of_kind(objects, "Gateway"):
        assert all(each["tls"]["certificateRefs"] for each in gateway["spec"]["listeners"])


@pytest.mark.parametrize("name", sorted(set(VALUES) - {"laptop-kind"}))
def test_only_the_laptop_gives_secrets_inline(name: str) -> None:
    assert not of_kind(rendered(name), "Secret")
