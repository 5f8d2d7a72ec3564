"""OpenTelemetry's own variables, as far as their wrong values would not be told of otherwise."""

from __future__ import annotations

import os
from importlib.util import find_spec

from services.errors import ConfigurationError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SAMPLER, RATIO = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
PLAIN = ("always_on", "always_off", "parentbased_always_on", "parentbased_always_off")
BY_RATIO = ("traceidratio", "parentbased_traceidratio")
EXPORTER = "opentelemetry.exporter.otlp.proto.http"


def check() -> bool:
    """Whether traces are to be exported.

    Raises:
        ConfigurationError: they are, and a variable has no value that works here, or the exporter is not installed.
    """
    endpoint = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    chosen = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if endpoint is None or disabled or chosen == "none":
        return False
    if chosen != "otlp":
        raise ConfigurationError("must be otlp or none", field="OTEL_TRACES_EXPORTER")
    if not os.environ[endpoint].startswith(("http://", "https://")):
        raise ConfigurationError("must begin with http:// or https://", field=endpoint)
    for name in PROTOCOLS:
        if os.environ.get(name, "http/protobuf") != "http/protobuf":
            raise ConfigurationError("must be http/protobuf; a collector takes it on port 4318", field=name)
    _check_sampler()
    if not _installed():
        raise ConfigurationError(
            "traces need the extra `tracing`: pip install 'medmax-serve[tracing]'", field=endpoint
        )
    return True


def _installed() -> bool:
    try:
        return find_spec(EXPORTER) is not None
    except ModuleNotFoundError:  # not even what it lies in
        return False


def _check_sampler() -> None:
    sampler = os.environ.get(SAMPLER, "parentbased_always_on")
    if sampler not in (*PLAIN, *BY_RATIO):
        raise ConfigurationError(f"must be one of {', '.join((*PLAIN, *BY_RATIO))}", field=SAMPLER)
    if sampler in BY_RATIO:
        try:
            ratio = float(os.environ.get(RATIO, "1"))
        except ValueError:
            ratio = -1
        if not 0 <= ratio <= 1:
            raise ConfigurationError("must be a number from 0 to 1", field=RATIO)
