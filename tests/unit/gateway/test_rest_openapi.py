"""schemathesis over the OpenAPI document: whatever it sends, the server does not fail, and keeps its word."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from rest_server import Server
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from services.gateway.rest.docs import ROUTES

# A route that takes nothing cannot be called wrongly.
CASES = [
    (route, mode)
    for route in ROUTES
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or route.body or "{" in route.path
]
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def document(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize(
    ("route", "mode"), CASES, ids=[f"{route.handler}-{mode.value}" for route, mode in CASES]
)
def test_no_request_causes_a_server_error(document: Any, route: Any, mode: GenerationMode) -> None:
    operation = document[route.path.replace(":path", "")][route.method]

    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=30)

    run()
