"""Every setting of the program, read from `MEDMAX_*` environment variables or given in code.

A wrong value fails at start with the variable's name (`load`); nothing is swallowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.errors import ConfigurationError

ROOT = Path(__file__).resolve().parent.parent
SHIPPED_MODEL = ROOT / "models" / "phantom"
MIB = 1 << 20
MAX_MODEL_CHARS = 64


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


class DType(StrEnum):
    """Precision of the language model's weights; `auto` is bfloat16 on a GPU and float32 on a CPU."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Backend(StrEnum):
    """Where a service's VQ-GAN runs."""

    TORCH = "torch"
    TRITON = "triton"


_NAME = r"[A-Za-z0-9._-]{1,32}"
_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:]{2,45}\]):[0-9]{1,5}")
_MODEL = r"^[A-Za-z0-9._-]{1,64}$"
AdapterName = Annotated[str, StringConstraints(pattern=f"^{_NAME}$")]


def _pairs(value: Any) -> Any:
    """`NAME=VALUE,NAME=VALUE`, or a list of such, as a mapping."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        return value
    pairs: dict[str, str] = {}
    for entry in value:
        name, _, rest = (part.strip() for part in str(entry).partition("="))
        if not name or not rest:
            raise ValueError("every entry must be NAME=VALUE")
        if not re.fullmatch(_NAME, name):
            raise ValueError("a name has 1 to 32 characters of A-Z a-z 0-9 . _ -")
        if name in pairs:
            raise ValueError("a name is given twice")
        pairs[name] = rest
    return pairs


def _callers(value: Any) -> Any:
    """`NAME=A|B,…` as a mapping from each name to its callers."""
    pairs = _pairs(value)
    if not isinstance(pairs, dict):
        return pairs
    return {
        name: [part.strip() for part in rest.split("|")] if isinstance(rest, str) else rest
        for name, rest in pairs.items()
    }


class Scale(BaseModel):
    """Replicas and queues of one deployment (Ray Serve autoscaling)."""

    min_replicas: int = Field(1, ge=0, le=1024)
    max_replicas: int = Field(1, ge=1, le=1024)
    target_ongoing_requests: float = Field(8, gt=0)
    max_ongoing_requests: int = Field(64, ge=1)
    max_queued_requests: int = Field(256, ge=-1, description="per caller; -1 = no limit")
    num_cpus: float = Field(0.25, ge=0, description="of a replica, or of each rank that shares one")
    num_gpus: float = Field(0, ge=0, description="likewise")
    upscale_delay_s: float = Field(5, ge=0)
    downscale_delay_s: float = Field(60, ge=0)


class Settings(BaseSettings):
    """All settings; defaults suit a laptop without a GPU."""

    model_config = SettingsConfigDict(env_prefix="MEDMAX_", env_nested_delimiter="__", extra="ignore")

    # Model
    checkpoint: Path = Field(SHIPPED_MODEL, description="checkpoint directory, of any layout")
    vqgan: Path | None = Field(
        None, description="published vqgan.ckpt, for checkpoints without the VQ-GAN's decoder"
    )
    model_id: str = Field("medmax-phantom", pattern=r"^[A-Za-z0-9._/-]{1,64}$")
    adapters: Annotated[dict[AdapterName, Path], NoDecode, BeforeValidator(_pairs)] = Field(
        {},
        max_length=64,
        description="comma-separated NAME=FOLDER of LoRA adapters; requests choose one as MODEL_ID:NAME",
    )
    adapter_bytes: int = Field(2 << 30, ge=1024, description="of all adapters' files together")
    device: Device = Device.CPU
    dtype: DType = DType.AUTO
    threads: int = Field(0, ge=0, le=256, description="torch threads of a replica; 0 = cores of the machine")

    # Addresses
    host: str = Field("127.0.0.1", description="beyond loopback only with API keys")
    http_port: int = Field(8000, ge=0, le=65535)
    grpc_port: int = Field(9000, ge=0, le=65535)
    tokenizer_address: str = Field(
        "", description="host:port of a gRPC tokenizer; empty = this application's"
    )
    llm_address: str = Field("", description="host:port of a gRPC language model; empty = this application's")
    decoder_address: str = Field("", description="host:port of a gRPC decoder; empty = this application's")

    # Access
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="comma-separated NAME:KEY or NAME:sha256$<hex>; empty = off, loopback only"
    )
    operators: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="comma-separated names of the keys that may see operators' pages"
    )
    service_key: SecretStr | None = Field(
        None, description="key that the gateway presents to services by address"
    )
    adapter_callers: Annotated[dict[AdapterName, tuple[str, ...]], NoDecode, BeforeValidator(_callers)] = (
        Field(
            {},
            description="comma-separated NAME=CALLER|CALLER: the keys that may use an adapter; not named = all",
        )
    )
    requests_per_minute: int = Field(600, ge=0, description="per key and gateway replica; 0 = no limit")

    # Limits
    max_request_bytes: int = Field(32 * MIB, ge=1024)
    max_image_bytes: int = Field(16 * MIB, ge=1024)
    max_image_pixels: int = Field(50_000_000, ge=1024)
    max_text_chars: int = Field(100_000, ge=1)
    request_timeout_s: float = Field(120, gt=0, le=3600)
    image_url_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="comma-separated hosts from which picture addresses are fetched; empty = none"
    )

    # Tokenizer and decoder
    tokenizer_cache_bytes: int = Field(64 * MIB, ge=0)
    batch_size: int = Field(16, ge=1, le=1024, description="pictures in one VQ-GAN batch")
    batch_wait_ms: float = Field(2, ge=0, le=1000)
    tokenizer_backend: Backend = Field(
        Backend.TORCH, description="triton = the VQ-GAN runs at a server of the Open Inference Protocol"
    )
    tokenizer_triton_address: str = Field("", description="host:port of that server's gRPC, without TLS")
    tokenizer_triton_model: str = Field("tokenizer", pattern=_MODEL, description="the model's name there")
    decoder_backend: Backend = Field(Backend.TORCH, description="likewise")
    decoder_triton_address: str = Field("", description="likewise")
    decoder_triton_model: str = Field("decoder", pattern=_MODEL, description="likewise")
    triton_timeout_s: float = Field(30, gt=0, le=3600, description="of one attempt")
    triton_retries: int = Field(
        3, ge=0, le=20, description="further attempts while that server is unavailable"
    )

    # Language model
    tensor_parallel: int = Field(
        1, ge=1, le=64, description="processes, one a GPU, that share one replica's model"
    )
    max_batch: int = Field(32, ge=1, le=4096, description="sequences in one step, companions included")
    kv_cache_bytes: int = Field(512 * MIB, ge=MIB)
    speculative_codes: int = Field(
        1,
        ge=1,
        le=64,
        description="image codes that one step may settle; 1 = no drafts. Pays where few answers run",
    )
    prefix_cache: bool = Field(True, description="read what prompts have in common once")
    touch_cache: bool = Field(
        False, description="write the key-value cache's memory at start, so that no request waits for it"
    )
    prefill_tokens: int = Field(
        2048, ge=16, le=1 << 20, description="prompt tokens read in one step; running answers wait meanwhile"
    )

    # Interactions
    store: bool = Field(True, description="keep interactions")
    database_url: str = Field("", description="SQLAlchemy address; empty = SQLite below data_dir")
    object_store: str = Field("", description="fsspec address for pictures; empty = a folder below data_dir")
    data_dir: Path = Field(Path("var"), description="where SQLite and pictures live by default")
    retention_days: int = Field(30, ge=1, le=36500)

    # Ray
    ray_dir: str = Field(
        "", max_length=40, description="folder of Ray's sockets and logs; empty = one below the system's own"
    )
    ray_object_store_bytes: int = Field(256 * MIB, ge=80 * MIB)

    # Replicas
    tokenizer: Scale = Field(default_factory=lambda: Scale(max_replicas=2))
    llm: Scale = Field(default_factory=lambda: Scale(num_cpus=1))
    decoder: Scale = Field(default_factory=lambda: Scale(max_replicas=2))
    gateway: Scale = Field(
        default_factory=lambda: Scale(max_replicas=2, target_ongoing_requests=32, max_ongoing_requests=256)
    )

    @field_validator("api_keys", "operators", "image_url_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @property
    def loopback(self) -> bool:
        return self.host in {"127.0.0.1", "::1", "localhost"}


def load(**overrides: Any) -> Settings:
    """Settings from the environment and `overrides`.

    Raises:
        ConfigurationError: a value is wrong; the message names the variable and the limit.
    """
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "MEDMAX_" + "__".join(str(part) for part in first["loc"]).upper()
        raise ConfigurationError(first["msg"], field=name) from None
    if not settings.loopback and not settings.api_keys:
        raise ConfigurationError(
            "listening beyond loopback needs API keys; set MEDMAX_API_KEYS=name:key", field="MEDMAX_HOST"
        )
    if unknown := sorted(settings.adapter_callers.keys() - settings.adapters.keys()):
        raise ConfigurationError(
            f"{unknown[0]} is no adapter of MEDMAX_ADAPTERS", field="MEDMAX_ADAPTER_CALLERS"
        )
    for name in ("tokenizer", "decoder"):
        if getattr(settings, f"{name}_backend") is Backend.TRITON:
            address = getattr(settings, f"{name}_triton_address")
            if not _ADDRESS.fullmatch(address):
                raise ConfigurationError(
                    f"must be host:port where MEDMAX_{name.upper()}_BACKEND=triton",
                    field=f"MEDMAX_{name.upper()}_TRITON_ADDRESS",
                )
    for name in settings.adapters:
        # Interactions keep MODEL_ID:NAME in a column of so many characters.
        if len(settings.model_id) + 1 + len(name) > MAX_MODEL_CHARS:
            raise ConfigurationError(
                f"MEDMAX_MODEL_ID, a colon and {name} have more than {MAX_MODEL_CHARS} characters",
                field="MEDMAX_ADAPTERS",
            )
    if settings.http_port and settings.http_port == settings.grpc_port:
        raise ConfigurationError("must differ from MEDMAX_HTTP_PORT", field="MEDMAX_GRPC_PORT")
    return settings


# What may change while an application goes on: keys and addresses that come from Secrets.
RENEWED = ("api_keys", "service_key", "database_url", "object_store")


def renewed(settings: Settings, names: Iterable[str]) -> Settings:
    """`settings` with those of `names` that this process's environment sets, as it sets them.

    Raises:
        ConfigurationError: as `load`.
    """
    own = load()
    return settings.model_copy(
        update={name: getattr(own, name) for name in names if name in own.model_fields_set}
    )
