"""The Serve config and the RayCluster mean to Ray what they mean to us."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray._common.utils import import_attr
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve._private.utils import DEFAULT
from ray.serve.schema import ServeDeploySchema

from services import app
from services.config import SHIPPED_MODEL, Settings
from services.deployments.cluster import environment
from services.errors import ConfigurationError
from tests.support.chart import Object, of_kind, pod_templates, rendered, serve_config


def test_ray_takes_the_serve_config(objects: list[Object]) -> None:
    found = ServeDeploySchema.model_validate(serve_config(objects))
    (application,) = found.applications
    assert {each.name for each in application.deployments} == {"gateway", "tokenizer", "llm", "decoder"}
    assert all(each.is_autoscaling_configured() for each in application.deployments)
    assert all(each.ray_actor_options is not DEFAULT.VALUE for each in application.deployments)
    assert found.grpc_options.grpc_servicer_functions == app.GRPC_SERVICES
    # A field that Ray does not know would be ignored in silence.
    for given, parsed in zip(
        serve_config(objects)["applications"][0]["deployments"], application.deployments, strict=True
    ):
        assert set(given) <= parsed.model_fields_set


def test_the_import_path_builds_the_four_deployments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMAX_HOST", "0.0.0.0")
    monkeypatch.setenv("MEDMAX_API_KEYS", "ward:secret")
    application = ServeDeploySchema.model_validate(serve_config(rendered("default"))).applications[0]
    built = call_user_app_builder_with_args_if_necessary(
        import_attr(application.import_path), {**application.args, "checkpoint": str(SHIPPED_MODEL)}
    )
    gateway = built._bound_deployment
    settings, handles = gateway.init_args[0], gateway.init_kwargs
    assert {gateway.name, *handles} == {each.name for each in application.deployments}
    assert settings.model_id == "medmax-phantom"
    assert settings.host == "0.0.0.0"
    assert "secret" not in settings.api_keys[0].get_secret_value()


def test_a_wrong_argument_of_the_config_file_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"args\.tensor_paralel"):
        app.from_config({"tensor_paralel": 4})
    with pytest.raises(ConfigurationError, match="MEDMAX_TENSOR_PARALLEL"):
        app.from_config({"tensor_parallel": 0})
    with pytest.raises(ConfigurationError, match="MEDMAX_HOST"):
        app.from_config({"host": "0.0.0.0"})


def test_rays_autoscaler_reads_what_each_group_offers(objects: list[Object]) -> None:
    service = of_kind(objects, "RayService")[0]
    cluster = {
        "metadata": {"name": "medmax", "namespace": "medmax"},
        "spec": {**service["spec"]["rayClusterConfig"], "enableInTreeAutoscaling": True},
    }
    kinds = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    deployments = serve_config(objects)["applications"][0]["deployments"]
    for each in deployments:
        options = each["ray_actor_options"]
        (resource,) = options["resources"]
        offered = kinds[resource.removeprefix("group_")]["resources"]
        assert offered[resource] == 1
        assert offered["CPU"] >= options["num_cpus"]
        assert offered.get("GPU", 0) >= options["num_gpus"]
    head = next(
        kind for name, kind in kinds.items() if not any(key.startswith("group_") for key in kind["resources"])
    )
    assert head["resources"]["CPU"] == 0


def test_pods_get_rays_settings_as_a_machine_does(objects: list[Object], tmp_path: Path) -> None:
    (config,) = [
        each for each in of_kind(objects, "ConfigMap") if each["metadata"]["name"].endswith("environment")
    ]
    wanted = environment(Settings(host="0.0.0.0"), tmp_path)
    # KubeRay makes the token, pods log to stderr, and the folder of metrics is a volume.
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_SERVE_LOG_TO_STDERR", "MEDMAX_METRICS_DIR"):
        wanted.pop(name)
    assert wanted.items() <= config["data"].items()
    assert of_kind(objects, "RayService")[0]["spec"]["rayClusterConfig"]["authOptions"]["mode"] == "token"


def test_every_pod_of_ray_has_the_same_environment(objects: list[Object]) -> None:
    # Serve builds the application on any node, and its proxies read settings from the environment.
    found = [
        (template["spec"]["containers"][0]["env"], template["spec"]["containers"][0]["envFrom"])
        for _, template in pod_templates(of_kind(objects, "RayService"))
    ]
    assert all(each == found[0] for each in found)


def test_an_upgrade_waits_for_the_new_clusters_whole_way(objects: list[Object]) -> None:
    fronts = [
        template
        for _, template in pod_templates(of_kind(objects, "RayService"))
        if template["metadata"]["labels"]["medmax.io/front"] == "true"
    ]
    assert len(fronts) == 1
    assert fronts[0]["spec"]["containers"][0]["readinessProbe"]["httpGet"] == {
        "path": "/readyz",
        "port": 8000,
    }
