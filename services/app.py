"""The Ray Serve graph: one application, four deployments, the only place that binds them.

    gateway (ingress: REST and gRPC) ──► tokenizer, llm, decoder

A service that the settings give an address is called there and not deployed here.
"""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.schema import LoggingConfig

from services import config
from services.config import Scale, Settings
from services.deployments.ingress import GatewayReplica, address_of
from services.deployments.replicas import DecoderReplica, LanguageModelReplica, TokenizerReplica
from services.errors import ConfigurationError
from services.gateway.auth import ApiKey

APPLICATION = "medmax"
HEALTH_PERIOD_S = 2.0
HEALTH_TIMEOUT_S = 10.0
DRAIN_S = 15.0
DRAIN_CHECK_S = 0.5
LOGGING = LoggingConfig(encoding="JSON", enable_access_log=False)  # of Serve itself; ours is services.logs
GRPC_SERVICES = [
    "services.pb.medmax.v1.assistant_pb2_grpc.add_AssistantServicer_to_server",
    "services.pb.medmax.v1.tokenizer_pb2_grpc.add_ImageTokenizerServicer_to_server",
    "services.pb.medmax.v1.llm_pb2_grpc.add_LanguageModelServicer_to_server",
    "services.pb.medmax.v1.decoder_pb2_grpc.add_ImageDecoderServicer_to_server",
    "services.pb.inference.grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server",
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
]


def from_config(args: dict[str, Any]) -> Application:
    """The application for a Serve config file: `import_path: services.app:from_config`.

    Args:
        args: settings by their names in `services.config`; those not given come from the environment.

    Raises:
        ConfigurationError: a value is wrong, or a name is none of the settings'.
    """
    if unknown := sorted(args.keys() - Settings.model_fields.keys()):
        raise ConfigurationError("is no setting of services.config", field=f"args.{unknown[0]}")
    return build(config.load(**args), renew=tuple(name for name in config.RENEWED if name not in args))


def build(settings: Settings, renew: tuple[str, ...] = ()) -> Application:
    """The application for `serve.run`.

    Args:
        renew: settings that a gateway's replica takes from its own environment when it starts. In a cluster this
            function runs once, on the head; a new pod has the Secrets of today.
    """
    settings = portable(settings)
    replicas: dict[str, type[Any]] = {
        "tokenizer": TokenizerReplica,
        "llm": LanguageModelReplica,
        "decoder": DecoderReplica,
    }
    ranks = {"llm": settings.tensor_parallel}
    services = {
        name: _deployment(name, cls, getattr(settings, name), ranks.get(name, 1)).bind(settings)
        for name, cls in replicas.items()
        if not address_of(settings, name)
    }
    gateway = _deployment("gateway", serve.ingress()(GatewayReplica), settings.gateway)
    application: Application = gateway.bind(settings, renew, **services)
    return application


def portable(settings: Settings) -> Settings:
    """`settings` as replicas get them: paths that do not depend on the working folder, keys as digests."""
    keys = tuple(
        SecretStr(f"{key.name}:sha256${key.digest.hex()}")
        for key in (ApiKey.parse(entry.get_secret_value()) for entry in settings.api_keys)
    )
    return settings.model_copy(
        update={
            "api_keys": keys,
            "adapters": {name: folder.resolve() for name, folder in settings.adapters.items()},
            "checkpoint": settings.checkpoint.resolve(),
            "data_dir": settings.data_dir.resolve(),
        }
    )


def _deployment(name: str, cls: type[Any], scale: Scale, ranks: int = 1) -> Any:
    # What one replica is given lies on one node, so the ranks that share a model need no placement group.
    resources = {"num_cpus": scale.num_cpus * ranks, "num_gpus": scale.num_gpus * ranks}
    return serve.deployment(
        name=name,
        autoscaling_config=AutoscalingConfig(
            min_replicas=scale.min_replicas,
            max_replicas=max(scale.min_replicas, scale.max_replicas),
            target_ongoing_requests=scale.target_ongoing_requests,
            upscale_delay_s=scale.upscale_delay_s,
            downscale_delay_s=scale.downscale_delay_s,
        ),
        max_ongoing_requests=scale.max_ongoing_requests,
        max_queued_requests=scale.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        ray_actor_options=resources,
        logging_config=LOGGING,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=DRAIN_S,
        graceful_shutdown_wait_loop_s=DRAIN_CHECK_S,
    )(cls)
