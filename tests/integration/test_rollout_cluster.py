"""`medmax rollout` on a RayService, through the real client and over HTTP.

Against the tests' own API server, with the rights of the chart's Role; with KUBECONFIG set, against that API server,
where the CRD of KubeRay must be and KubeRay itself must not. KubeRay's status is written by `tests.support.kuberay`.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("helm_python", reason="the extra `chart` is not installed")
pytest.importorskip("kubernetes", reason="the extra `cluster` is not installed")

from kubernetes import config as kubeconfig
from kubernetes.client import ApiClient, Configuration, CoreV1Api, CustomObjectsApi

from services import cli
from services.rollout.rayservice import MERGE_PATCH, RayService
from services.rollout.record import Phase
from tests.support.apiserver import ApiServer, api_server
from tests.support.chart import of_kind, rendered
from tests.support.gateway import Gateway, digest, gateway
from tests.support.kuberay import KubeRay, playing, wait_for

REAL = os.environ.get("KUBECONFIG", "")
ADMIN, OPERATOR = "admin-token", "operator-token"
NEW = "/models/new"
ROOT = Path(__file__).resolve().parents[2]
QUICK = (
    *("--ready-s", "60", "--settle-s", "0.6", "--baseline-s", "0.3", "--window-s", "0.6"),
    *("--min-requests", "20", "--poll-s", "0.1"),
)
needs_own_server = pytest.mark.skipif(bool(REAL), reason="the API server of KUBECONFIG is left alone")


@dataclass
class Ward:
    """A RayService that runs, who may change it, and who answers its requests.

    Attributes:
        server: None where KUBECONFIG names a real one.
    """

    kuberay: KubeRay
    gateway: Gateway
    core: CoreV1Api
    config: Path
    server: ApiServer | None
    capsys: pytest.CaptureFixture[str]

    @property
    def where(self) -> list[str]:
        return ["--rayservice", "medmax", "-n", self.kuberay.namespace]

    def run(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit status and JSON document of `medmax rollout …`."""
        status = cli._run(["rollout", *arguments, *self.where, "--json"])
        text = self.capsys.readouterr().out
        return status, json.loads(text)

    def judged(self, model: str) -> tuple[str, ...]:
        """Options of where evidence comes from; the gateway must answer with the weights of `model`."""
        url = self.gateway.url
        return ("--metrics", f"{url}/metrics", "--gateway", url, "--digest", digest(model))

    def start(self, *more: str, model: str = NEW) -> tuple[int, dict[str, Any]]:
        return self.run("start", "--model", model, *self.judged(model), *QUICK, *more)

    def spawn(self, *more: str, model: str = NEW) -> subprocess.Popen[str]:
        """`medmax rollout start` as a process of its own."""
        options = ("--model", model, *self.where, *self.judged(model), *QUICK, *more, "--json")
        return subprocess.Popen(
            [sys.executable, "-m", "services.cli", "rollout", "start", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def events(self) -> list[str]:
        return [each["what"] for each in self.run("history")[1]["events"]]

    def touch(self) -> None:
        """Somebody else changes something of the object, so that its resource version moves on."""
        body = {"metadata": {"annotations": {"tests/touched": secrets.token_hex(4)}}}
        api = self.kuberay.api
        api.patch_namespaced_custom_object(**self.kuberay.where, body=body, _content_type=MERGE_PATCH)

    @property
    def checkpoint(self) -> str:
        text = self.kuberay.read()["spec"]["serveConfigV2"]
        return str(yaml.safe_load(text)["applications"][0]["args"]["checkpoint"])


def _kubeconfig(folder: Path, url: str, token: str) -> Path:
    file = folder / f"config-{token}"
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "medmax"}}],
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": token}}],
    }
    file.write_text(yaml.safe_dump(value))
    return file


def _admin(config: Path) -> ApiClient:
    settings = Configuration()
    kubeconfig.load_kube_config(str(config), client_configuration=settings)
    settings.retries = False
    return ApiClient(settings)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer | None]:
    if REAL:
        yield None
        return
    (role,) = of_kind(rendered("default"), "Role")
    with api_server() as made:
        made.tokens = {ADMIN: None, OPERATOR: role["rules"]}
        yield made


@pytest.fixture
def ward(
    server: ApiServer | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Ward]:
    """The chart's RayService, its ConfigMap and its Lease, as an installation leaves them."""
    config = Path(REAL) if REAL else _kubeconfig(tmp_path, server.url, ADMIN)
    client = _admin(config)
    core, custom = CoreV1Api(client), CustomObjectsApi(client)
    namespace = f"medmax-{secrets.token_hex(4)}" if REAL else "medmax"
    if REAL:
        core.create_namespace({"metadata": {"name": namespace}})
    for each in of_kind(rendered("default"), "RayService", "ConfigMap", "Lease"):
        made = {**each, "metadata": {**each["metadata"], "namespace": namespace}}
        if each["kind"] == "ConfigMap" and each["metadata"]["name"].endswith("-rollout"):
            core.create_namespaced_config_map(namespace, made)
        elif each["kind"] != "ConfigMap":
            group, version = each["apiVersion"].split("/")
            plural = f"{each['kind'].lower()}s"
            custom.create_namespaced_custom_object(group, version, namespace, plural, made)
    used = Path(REAL) if REAL else _kubeconfig(tmp_path, server.url, OPERATOR)
    monkeypatch.setenv("KUBECONFIG", str(used))
    monkeypatch.setenv("MEDMAX_ROLLOUT_BY", "Nurse@station")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(used))
    kuberay = KubeRay(custom, namespace, "medmax", {"never": "never", "fails": "fails", "falls": "falls"})
    for running in playing(kuberay):
        with gateway(lambda: kuberay.serving) as asked:
            yield Ward(running, asked, core, used, server, capsys)
    if REAL:
        core.delete_namespace(namespace)


def test_a_healthy_model_is_promoted_and_the_history_says_so(ward: Ward) -> None:
    before = ward.checkpoint
    status, ended = ward.start("--why", "trained on the June verdicts")
    assert (status, ended["outcome"]) == (0, Phase.PROMOTED)
    assert ward.checkpoint == NEW
    assert ended["before"]["requests"] >= 20
    assert ended["after"]["error_ratio"] == 0
    _, kept = ward.run("history")
    assert [each["what"] for each in kept["events"]] == ["started", "applied", "ready", "promoted"]
    first = kept["events"][0]
    assert (first["by"], first["reason"]) == ("Nurse@station", "trained on the June verdicts")
    assert (first["from"]["checkpoint"], first["to"]["checkpoint"]) == (before, NEW)
    assert [each["at"] for each in kept["events"]] == sorted(each["at"] for each in kept["events"])


def test_only_the_model_is_changed(ward: Ward) -> None:
    before = ward.kuberay.read()["spec"]
    _, plan = ward.run("plan", "--model", NEW)
    changed = [
        line for line in plan["diff"].splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    assert [line.strip("+- ") for line in changed] == [f"checkpoint: {ward.checkpoint}", f"checkpoint: {NEW}"]
    assert ward.kuberay.read()["spec"] == before
    ward.start()
    after = ward.kuberay.read()["spec"]
    assert after["serveConfigV2"] == before["serveConfigV2"].replace(
        "checkpoint: /app/models/phantom", f"checkpoint: {NEW}"
    )
    assert after["rayClusterConfig"] == before["rayClusterConfig"]


def test_a_model_that_fails_requests_is_rolled_back(ward: Ward) -> None:
    ward.gateway.failing = {NEW: 0.3}
    status, ended = ward.start()
    assert (status, ended["outcome"]) == (1, Phase.ROLLED_BACK)
    assert "requests failed" in ended["reason"]
    assert ward.checkpoint == ended["from"]["checkpoint"] == ward.kuberay.serving
    assert ward.events() == ["started", "applied", "ready", "going back", "rolled back"]
    status, refused = ward.start()  # as the review loop does, until it succeeds
    assert (status, refused["error"]["code"]) == (1, "configuration_error")
    assert "use --again" in refused["error"]["message"]
    ward.gateway.failing = {}
    assert ward.start("--again")[1]["outcome"] == Phase.PROMOTED


def test_callers_mistakes_do_not_count_against_a_model(ward: Ward) -> None:
    ward.gateway.mistaken = {NEW: 0.5}
    assert ward.start()[1]["outcome"] == Phase.PROMOTED


def test_a_slow_model_is_rolled_back(ward: Ward) -> None:
    ward.gateway.first_token_s = {NEW: 1.5}
    status, ended = ward.start()
    assert (status, ended["outcome"]) == (1, Phase.ROLLED_BACK)
    assert "one answer in twenty begins after more than" in ended["reason"]


def test_a_model_that_never_becomes_ready_is_rolled_back(ward: Ward) -> None:
    status, ended = ward.start("--ready-s", "4", model="/models/never")
    assert (status, ended["outcome"]) == (1, Phase.ROLLED_BACK)
    assert "not ready within 4 s: application DEPLOYING (llm UPDATING)" in ended["reason"]


def test_a_model_that_cannot_be_deployed_is_rolled_back_with_serves_reason(ward: Ward) -> None:
    _, ended = ward.start(model="/models/fails")
    assert ended["outcome"] == Phase.ROLLED_BACK
    assert "no such directory" in ended["reason"]


def test_a_model_that_falls_ill_while_watched_is_rolled_back(ward: Ward) -> None:
    _, ended = ward.start("--window-s", "60", model="/models/falls")
    assert ended["outcome"] == Phase.ROLLED_BACK
    assert "was ready and is not any more: application UNHEALTHY" in ended["reason"]


def test_other_weights_than_the_digest_names_are_rolled_back(ward: Ward) -> None:
    _, ended = ward.start("--ready-s", "5", "--digest", "0" * 64)
    assert ended["outcome"] == Phase.ROLLED_BACK
    assert "the gateway answers with the weights" in ended["reason"]


def test_few_requests_decide_nothing_unless_asked_to(ward: Ward) -> None:
    ward.gateway.quiet = True
    _, ended = ward.start()
    assert (ended["outcome"], ended["reason"][:16]) == (Phase.PROMOTED, "on health alone:")
    _, ended = ward.start("--undecided", "rollback", model="/models/newer")
    assert (ended["outcome"], ended["reason"][:17]) == (Phase.ROLLED_BACK, "too few to judge:")


def test_a_killed_roll_out_goes_on_where_it_was(ward: Ward) -> None:
    process = ward.spawn("--window-s", "3", "--settle-s", "1")
    wait_for(lambda: ward.checkpoint == NEW, 150)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, seen = ward.run("status")
    assert seen["rollout"]["phase"] in {Phase.APPLYING, Phase.STARTING, Phase.WATCHING}
    status, refused = ward.start()
    assert (status, refused["error"]["code"]) == (
        1,
        "overloaded",
    )  # the Lease is the dead process's a while longer
    _forget_holder(ward)
    status, other = ward.start(model="/models/third")
    assert (status, "is unfinished" in other["error"]["message"]) == (1, True)
    status, ended = ward.start()
    assert (status, ended["id"], ended["outcome"]) == (0, seen["rollout"]["id"], Phase.PROMOTED)
    assert ward.events().count("applied") == 1


def test_a_killed_roll_out_is_watched_on_from_another_machine_or_ended(ward: Ward) -> None:
    for what in ("status", "abort"):
        model = f"/models/{what}"
        process = ward.spawn("--window-s", "2", model=model)
        wait_for(lambda model=model: ward.checkpoint == model, 150)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _forget_holder(ward)
        if what == "status":
            status, seen = ward.run("status", "--watch", "--poll-s", "0.1")
            assert (status, seen["rollout"]["outcome"], seen["serves"]["checkpoint"]) == (
                0,
                Phase.PROMOTED,
                model,
            )
        else:
            status, ended = ward.run("abort", "--poll-s", "0.1")
            assert (status, ended["outcome"], ward.checkpoint) == (0, Phase.ABORTED, "/models/status")


def test_a_concurrent_start_is_refused_and_abort_ends_the_other(ward: Ward) -> None:
    process = ward.spawn("--window-s", "60")
    wait_for(lambda: ward.run("status")[1]["rollout"] is not None, 150)
    status, refused = ward.start(model="/models/third")
    assert (status, refused["error"]["code"]) == (1, "overloaded")
    assert "another roll-out is conducted by Nurse@station" in refused["error"]["message"]
    wait_for(lambda: ward.run("status")[1]["rollout"]["phase"] == Phase.WATCHING, 60)
    status, ended = ward.run("abort", "--why", "wrong ward", "--poll-s", "0.1")
    assert (status, ended["outcome"]) == (0, Phase.ABORTED)
    assert "Nurse@station wanted it back: wrong ward" in ended["reason"]
    assert ward.checkpoint == ended["from"]["checkpoint"]
    assert process.wait(60) == 1
    assert json.loads(process.stdout.read())["outcome"] == Phase.ABORTED
    assert ward.events()[-3:] == ["abort asked for", "going back", "aborted"]


def test_a_change_by_somebody_else_in_between_is_not_lost(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, tries = RayService.apply, []

    def late(self: RayService, state: Any, *rest: Any) -> Any:
        tries.append(state)
        if len(tries) < 3:
            ward.touch()  # after it was read, before it is written: a conflict
        return apply(self, state, *rest)

    monkeypatch.setattr(RayService, "apply", late)
    assert ward.start()[1]["outcome"] == Phase.PROMOTED
    assert len(tries) == 3
    assert "tests/touched" in ward.kuberay.read()["metadata"]["annotations"]


def test_another_model_put_there_by_hand_is_left_alone(ward: Ward) -> None:
    def by_hand() -> None:
        wait_for(lambda: ward.kuberay.serving == NEW)
        text = ward.kuberay.read()["spec"]["serveConfigV2"].replace(NEW, "/models/by-hand")
        body = {"spec": {"serveConfigV2": text}}
        ward.kuberay.api.patch_namespaced_custom_object(
            **ward.kuberay.where, body=body, _content_type=MERGE_PATCH
        )

    hand = threading.Thread(target=by_hand)
    hand.start()
    _, ended = ward.start("--window-s", "60")
    hand.join()
    assert ended["outcome"] == Phase.SUPERSEDED
    assert ward.checkpoint == "/models/by-hand"


def test_new_images_come_with_a_new_cluster(ward: Ward) -> None:
    image = "medmax/medmax-cpu:0.2.0"
    _, plan = ward.run("plan", "--model", NEW, "--image", f"llm={image}", "--env", "HF_HUB_OFFLINE=1")
    added = [line for line in plan["diff"].splitlines() if line.startswith("+")]
    assert sum(line.endswith(f"image: {image}") for line in added) == 2  # the exporter's as well
    assert "a new Ray cluster beside the old one" in plan["how"]
    _, ended = ward.start("--image", f"llm={image}", "--env", "HF_HUB_OFFLINE=1")
    assert ended["outcome"] == Phase.PROMOTED
    found = ward.kuberay.read()
    groups = {each["groupName"]: each for each in found["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    for container in groups["llm"]["template"]["spec"]["containers"]:
        assert container["image"] == image
    assert groups["codec"]["template"]["spec"]["containers"][0]["image"] != image
    assert found["status"]["activeServiceStatus"]["rayClusterName"] == "cluster-1"


def test_a_new_cluster_that_never_comes_up_leaves_the_old_one(ward: Ward) -> None:
    before = ward.kuberay.read()["spec"]
    _, ended = ward.start("--ready-s", "2.5", "--env", "A=b", model="/models/never")
    assert ended["outcome"] == Phase.ROLLED_BACK
    assert ward.kuberay.read()["spec"] == before
    assert ward.kuberay.read()["status"]["activeServiceStatus"]["rayClusterName"] == "cluster-0"


def test_a_second_start_of_what_serves_does_nothing(ward: Ward) -> None:
    assert ward.start()[0] == 0
    revision = ward.kuberay.read()["metadata"]["generation"]
    assert ward.start() == (0, {"outcome": "unchanged"})
    assert ward.kuberay.read()["metadata"]["generation"] == revision


def test_an_expired_token_says_what_to_do(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load(ward.config.read_text())
    for user in config["users"]:
        user["user"] = {"token": "expired"}
    (tmp_path / "old").write_text(yaml.safe_dump(config))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "old"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "old"))
    status, said = ward.start()
    assert (status, said["error"]["code"]) == (1, "unauthenticated")
    assert "Log in again" in said["error"]["message"]


@needs_own_server
def test_without_the_role_the_error_names_what_is_forbidden(ward: Ward) -> None:
    ward.server.tokens[OPERATOR] = []
    status, said = ward.start()
    assert (status, said["error"]["code"]) == (1, "permission_denied")
    assert "get rayservices/medmax" in said["error"]["message"]
    assert "rollout.subjects" in said["error"]["message"]


@needs_own_server
def test_an_api_server_that_is_down_for_a_while_is_waited_for(ward: Ward) -> None:
    def outage() -> None:
        wait_for(lambda: ward.checkpoint == NEW)
        ward.server.down = True
        time.sleep(1.5)
        ward.server.down = False

    thread = threading.Thread(target=outage)
    thread.start()
    _, ended = ward.start()
    thread.join()
    assert ended["outcome"] == Phase.PROMOTED


@needs_own_server
def test_a_forgotten_resource_version_only_means_to_read_again(ward: Ward) -> None:
    stop = threading.Event()

    def forget() -> None:
        while not stop.wait(0.05):
            ward.server.compact()

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        assert ward.start("--poll-s", "2", "--settle-s", "3")[1]["outcome"] == Phase.PROMOTED
    finally:
        stop.set()
        thread.join()


@needs_own_server
def test_the_charts_role_is_enough_and_nothing_of_it_is_unused(ward: Ward) -> None:
    ward.start("--poll-s", "2", "--settle-s", "3")  # long enough to watch
    (role,) = of_kind(rendered("default"), "Role")
    used = {(verb, resource) for verb, resource, _ in ward.server.seen}
    for rule in role["rules"]:
        for verb in rule["verbs"]:
            if verb != "list":  # goes with watch
                assert (verb, rule["resources"][0]) in used


def test_no_such_rayservice_and_wrong_names_are_errors_of_the_caller(ward: Ward) -> None:
    if ward.server:
        ward.server.tokens[OPERATOR] = None  # the chart's Role knows no other name
    arguments = ["rollout", "status", "--rayservice", "other", "-n", ward.kuberay.namespace, "--json"]
    assert cli._run(arguments) == 1
    assert json.loads(ward.capsys.readouterr().out)["error"]["code"] == "not_found"
    status, said = ward.start("--max-error-ratio", "2")
    assert (status, said["error"]["field"]) == (1, "max_error_ratio")
    status, said = ward.start("--image", "radiology=x:1")
    assert "there are head, codec, gateway, llm" in said["error"]["message"]


def _forget_holder(ward: Ward) -> None:
    """As if the Lease's time were over."""
    api, where = ward.kuberay.api, {"group": "coordination.k8s.io", "version": "v1", "plural": "leases"}
    body = {"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}}
    api.patch_namespaced_custom_object(
        **where, namespace=ward.kuberay.namespace, name="medmax-rollout", body=body, _content_type=MERGE_PATCH
    )
