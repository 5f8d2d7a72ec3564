"""The graph and what goes into it."""

from pathlib import Path

import pytest

from services.app import build, from_config, portable
from services.config import Scale, Settings, renewed
from services.deployments.cluster import check_port, environment, free_port
from services.errors import ConfigurationError
from services.gateway.auth import ApiKey, Gate
from services.rpc import Server


def test_keys_travel_as_digests() -> None:
    moved = portable(Settings(api_keys="ward:secret-1,plain-key"))
    texts = [entry.get_secret_value() for entry in moved.api_keys]
    assert not any("secret-1" in text or "plain-key" in text for text in texts)
    assert ApiKey.parse(texts[0]) == ApiKey.parse("ward:secret-1")
    assert ApiKey.parse(texts[1]).digest == ApiKey.parse("plain-key").digest


def test_a_gateway_that_starts_later_has_the_keys_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMAX_API_KEYS", "ward:old")
    monkeypatch.setenv("MEDMAX_DATABASE_URL", "postgresql://medmax:old@db/medmax")
    settings, renew = from_config({"retention_days": 7})._bound_deployment.init_args
    monkeypatch.setenv("MEDMAX_API_KEYS", "ward:old,ward:new")
    monkeypatch.setenv("MEDMAX_DATABASE_URL", "postgresql://medmax:new@db/medmax")
    monkeypatch.setenv("MEDMAX_RETENTION_DAYS", "9")
    started = renewed(settings, renew)
    gate = Gate(started)
    assert {gate.authenticate(f"Bearer {key}") for key in ("old", "new")} == {"ward"}
    assert started.database_url.endswith(":new@db/medmax")
    assert started.retention_days == 7, "of the application, not of the pod"


def test_a_stack_of_this_machine_keeps_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMAX_API_KEYS", "ward:environment")
    _, renew = build(Settings(api_keys="ward:given"))._bound_deployment.init_args
    assert renew == ()


def test_paths_do_not_depend_on_the_working_folder() -> None:
    moved = portable(
        Settings(data_dir=Path("var"), checkpoint=Path("models/x"), adapters={"a": Path("adapters/a")})
    )
    assert moved.data_dir.is_absolute()
    assert moved.checkpoint.is_absolute()
    assert moved.adapters["a"].is_absolute()


def test_ray_is_kept_on_loopback_only_where_the_host_is(tmp_path: Path) -> None:
    assert environment(Settings(), tmp_path)["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in environment(Settings(host="0.0.0.0"), tmp_path)


def test_every_run_has_its_own_token(tmp_path: Path) -> None:
    tokens = {environment(Settings(), tmp_path)["RAY_AUTH_TOKEN"] for _ in range(3)}
    assert len(tokens) == 3


async def test_a_busy_port_is_named_with_the_option_that_changes_it() -> None:
    server = await Server({}, "127.0.0.1", 0, Settings()).start()
    port = int(server.address.rsplit(":", 1)[1])
    with pytest.raises(ConfigurationError, match=rf"{port}.*--http-port.*MEDMAX_HTTP_PORT"):
        check_port("127.0.0.1", port, "--http-port", "MEDMAX_HTTP_PORT")
    await server.stop(0)
    check_port("127.0.0.1", free_port("127.0.0.1"), "--http-port", "MEDMAX_HTTP_PORT")


def test_scales_are_checked() -> None:
    with pytest.raises(ValueError, match="greater than"):
        Scale(target_ongoing_requests=0)


def test_every_deployment_has_its_own_scale_and_a_service_by_address_has_none() -> None:
    application = build(
        Settings(gateway=Scale(max_replicas=7, max_ongoing_requests=9), llm_address="127.0.0.1:1")
    )
    gateway = application._bound_deployment
    config = gateway._deployment_config
    assert (config.autoscaling_config.max_replicas, config.max_ongoing_requests) == (7, 9)
    assert gateway.name == "gateway"
    bound = gateway.init_kwargs
    assert set(bound) == {"tokenizer", "decoder"}
    assert {node._bound_deployment.name for node in bound.values()} == {"tokenizer", "decoder"}
