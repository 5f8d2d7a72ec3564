"""Wrong values are refused with a message that names them; right ones do what they say."""

from __future__ import annotations

import json
from typing import Any

import helm_python
import pytest
import yaml

from services.config import Settings
from tests.support.chart import (
    CHART,
    Object,
    merge,
    of_kind,
    pod_templates,
    read,
    render,
    rendered,
    serve_config,
)


def at(path: str, value: Any) -> Object:
    """{"a": {"b": value}} of "a.b"."""
    for key in reversed(path.split(".")):
        value = {key: value}
    made: Object = value
    return made


SCHEMA = [
    ("image.cpu.tag", "latest"),
    ("image.pullPolicy", "Sometimes"),
    ("image.gpu.digest", "sha256:abc"),
    ("auth.key", "x"),
    ("model.source", "ftp"),
    ("model.uri", "http://example.org/x"),
    ("model.digest", "abc"),
    ("model.path", "../../etc"),
    ("model.id", "with space"),
    ("settings.tensor_paralel", 4),
    ("settings.tensor_parallel", 0),
    ("settings.database_url", "sqlite://"),
    ("settings.device", "tpu"),
    ("settings.request_timeout_s", 0),
    ("services.llm.maxReplicas", 0),
    ("services.llm.minReplicas", -1),
    ("services.llm.maxQueuedRequests", 0),
    ("services.llm.gpus", -1),
    ("services.embedder", {}),
    ("groups.llm.image", "tpu"),
    ("groups.llm.gpus", 0.5),
    ("groups.llm.resources.limits.memory", "8 GB"),
    ("groups.Upper", {}),
    ("ray.stateStore.backend", "etcd"),
    ("drain.endpointSeconds", -1),
    ("database.kind", "mysql"),
    ("database.bundled.password", "with:colon"),
    ("objectStore.url", "file:///x"),
    ("labelStudio.host", "not a host"),
    ("review.env", {"lower": "x"}),
    ("review.replicas", 2),
    ("review.size", "much"),
    ("review.publicUrl", "http://review.example.org"),
    ("review.publicUrl", "https://review.example.org/path"),
    ("review.config", {"rooting": {}}),
    ("review.config.labelstudio", "http://label.example.org"),
    ("review.existingSecret", "Not A Name"),
    ("review.egress.cidrs", ["label.example.org"]),
    ("backup.schedule", "nightly"),
    ("backup.keepDays", 0),
    ("backup.url", "/backups"),
    ("ingress.tlsSecret", ""),
    ("gateway.host", "https://x.example"),
    ("networkPolicy.clients", []),
    ("networkPolicy.clients", [{}]),
    ("networkPolicy.apiServer.cidrs", ["everywhere"]),
    ("networkPolicy.triton.port", 70_000),
    ("networkPolicy.triton.cidrs", ["everywhere"]),
    ("monitoring.kind", "Datadog"),
    ("monitoring.rules.errorRatio", 2),
    ("priorityClasses.serving.value", 2_000_000_000),
    ("runAsUser", 0),
    ("topologySpread", "yes"),
]


@pytest.mark.parametrize(("path", "value"), SCHEMA, ids=[f"{path}={value}" for path, value in SCHEMA])
def test_the_schema_names_a_wrong_value(path: str, value: Any) -> None:
    with pytest.raises(helm_python.HelmError) as raised:
        render(at(path, value))
    message = str(raised.value)
    wanted = path.split(".")
    assert all(part in message for part in wanted[:-1]), message
    assert wanted[-1] in message or str(value) in message, message


GROUP = yaml.safe_load((CHART / "values.yaml").read_text())["groups"]["llm"]
CONTRADICTIONS: list[tuple[str, Object]] = [
    ("services.llm.group", at("services.llm.group", "nowhere")),
    ("services.llm.minReplicas", at("services.llm.minReplicas", 9)),
    ("groups.llm.minPods", at("groups.llm.minPods", 9)),
    ("services.decoder.gpus", at("settings.device", "cuda")),
    ("services.llm.gpus", at("services.llm.gpus", 1)),
    ("groups.llm.image", at("groups.llm.gpus", 1)),
    ("model.cache.existingClaim", at("model.source", "claim")),
    ("groups.head", at("groups.head", GROUP)),
    ("model.uri", at("model.source", "fetch")),
    ("model.digest", {"model": {"source": "fetch", "uri": "hf://a/b"}}),
    ("objectStore.url", at("objectStore.kind", "s3")),
    ("backup.url", at("backup.url", "s3://x")),
    ("auth.existingSecret", at("auth.existingSecret", "")),
    ("database.bundled.password", at("database.kind", "bundled")),
    ("labelStudio.database.password", at("labelStudio.enabled", True)),
    ("gateway.className", at("gateway.enabled", True)),
    ("ingress.grpcHost", {"ingress": {"enabled": True, "grpcHost": "medmax.example.org"}}),
    ("settings.tokenizer_triton_address", at("settings.tokenizer_backend", "triton")),
    (
        "settings.decoder_triton_address",
        at("settings", {"decoder_backend": "triton", "decoder_triton_address": "http://triton"}),
    ),
    (
        "networkPolicy.triton",
        at("settings", {"decoder_backend": "triton", "decoder_triton_address": "triton:8001"}),
    ),
    ("review.config.host", at("review.config.host", "127.0.0.1")),
    ("review.config.port", at("review.config.port", 8010)),
    ("review.publicUrl", at("review.config.labelstudio.public_url", "https://review.example.org")),
    ("review.publicUrl", at("review.config.labelstudio.hook_url", "https://review.example.org")),
    ("review.config.evaluation.0.data", at("review.config.evaluation", [{"data": "s3://me:x@bucket"}])),
    (
        "review.config.labelstudio.url",
        {
            "review": {"config": {"labelstudio": {"url": "http://elsewhere"}}},
            "labelStudio": {"enabled": True, "database": {"existingSecret": "x"}},
        },
    ),
    (
        "review.publicUrl",
        {
            "review": {"enabled": True, "publicUrl": "https://grpc.medmax.example.org:443"},
            "ingress": {"enabled": True},
        },
    ),
    ("ray.deletionDelaySeconds", at("settings.request_timeout_s", 3000)),
]


@pytest.mark.parametrize(("name", "values"), CONTRADICTIONS, ids=[name for name, _ in CONTRADICTIONS])
def test_values_that_contradict_each_other_are_named(name: str, values: Object) -> None:
    with pytest.raises(helm_python.HelmError, match=name.replace(".", r"\.")):
        render(values)


def test_a_replica_must_fit_its_pod() -> None:
    small = merge(read("multi-gpu-tp4"), at("groups.llm.gpus", 2))
    with pytest.raises(helm_python.HelmError, match=r"services\.llm\.gpus: a replica takes 4 GPUs.* has 2"):
        render(small)
    odd = merge(read("multi-gpu-tp4"), at("services.llm.gpus", 0.4))
    with pytest.raises(helm_python.HelmError, match=r"services\.llm\.gpus: 1\.6.*whole"):
        render(odd)


def test_the_schema_knows_every_value_and_every_setting() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    settings = set(schema["properties"]["settings"]["properties"])
    elsewhere = {
        *("checkpoint", "vqgan", "model_id", "host", "http_port", "grpc_port", "api_keys", "service_key"),
        *("database_url", "object_store", "data_dir", "ray_dir", "ray_object_store_bytes"),
        *("tokenizer", "llm", "decoder", "gateway"),
    }
    assert settings | elsewhere == set(Settings.model_fields)


def test_what_the_schema_lets_through_the_settings_take(objects: list[Object]) -> None:
    args = serve_config(objects)["applications"][0]["args"]
    Settings.model_validate({**args, "host": "0.0.0.0", "api_keys": "a:b"})


def test_tensor_parallel_replicas_get_a_gpu_a_rank() -> None:
    deployments = {
        each["name"]: each
        for each in serve_config(rendered("multi-gpu-tp4"))["applications"][0]["deployments"]
    }
    assert deployments["llm"]["ray_actor_options"]["num_gpus"] == 4
    assert deployments["llm"]["ray_actor_options"]["num_cpus"] == 16
    assert deployments["tokenizer"]["ray_actor_options"]["num_gpus"] == 0.25


def test_services_that_share_a_group_share_its_pods() -> None:
    service = of_kind(rendered("single-gpu"), "RayService")[0]
    names = [group["groupName"] for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]]
    assert names == ["gateway", "gpu"]


def test_the_replicas_that_are_always_there_fit_their_pods(objects: list[Object]) -> None:
    groups = {
        group["groupName"]: group
        for group in of_kind(objects, "RayService")[0]["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    }
    need: dict[str, list[float]] = {name: [0.0, 0.0] for name in groups}
    for each in serve_config(objects)["applications"][0]["deployments"]:
        options, least = each["ray_actor_options"], each["autoscaling_config"]["min_replicas"]
        (resource,) = options["resources"]
        have = need[resource.removeprefix("group_")]
        have[0] += options["num_cpus"] * least
        have[1] += options["num_gpus"] * least
    for name, (cpus, gpus) in need.items():
        limits = groups[name]["template"]["spec"]["containers"][0]["resources"]["limits"]
        pods = groups[name]["minReplicas"]
        assert cpus <= float(limits["cpu"]) * pods, name
        assert gpus <= limits.get("nvidia.com/gpu", 0) * pods, name


def test_keys_given_inline_replace_the_existing_secret() -> None:
    objects = render({"auth": {"apiKeys": "ward:x", "existingSecret": "other"}})
    (secret,) = of_kind(objects, "Secret")
    assert secret["stringData"] == {"api-keys": "ward:x"}
    text = json.dumps([template for _, template in pod_templates(objects)])
    assert secret["metadata"]["name"] in text
    assert '"other"' not in text


def test_a_changed_secret_gives_new_pods() -> None:
    def checksums(key: str) -> set[str]:
        objects = render({"auth": {"apiKeys": key}})
        return {
            template["metadata"]["annotations"]["checksum/config"]
            for _, template in pod_templates(of_kind(objects, "RayService"))
        }

    assert not checksums("a:one") & checksums("a:two")


def test_another_checkpoint_gets_its_own_job_and_folder() -> None:
    base = read("single-gpu")
    first, second = (render(merge(base, at("model.digest", digit * 64))) for digit in "12")
    jobs = [of_kind(each, "Job")[0] for each in (first, second)]
    assert jobs[0]["metadata"]["name"] != jobs[1]["metadata"]["name"]
    paths = [serve_config(each)["applications"][0]["args"]["checkpoint"] for each in (first, second)]
    assert paths == [f"/models/medmax-7b-{digit * 12}" for digit in "12"]
    for job, path in zip(jobs, paths, strict=True):
        assert path in job["spec"]["template"]["spec"]["containers"][0]["args"]


def test_a_job_is_never_changed() -> None:
    base = read("single-gpu")
    names = {
        of_kind(render(merge(base, change)), "Job")[0]["metadata"]["name"]
        for change in ({}, at("image.cpu.tag", "0.2.0"), at("model.fetch.resources.limits.cpu", "3"))
    }
    assert len(names) == 3


def test_a_new_model_of_the_same_image_changes_no_pod_of_ray() -> None:
    base = merge(read("airgapped"), at("model.path", "one"))
    clusters = [
        of_kind(render(merge(base, at("model.path", path))), "RayService")[0]["spec"]["rayClusterConfig"]
        for path in ("one", "two")
    ]
    assert clusters[0] == clusters[1]
