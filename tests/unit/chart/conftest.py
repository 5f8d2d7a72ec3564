"""Each test that takes `objects` runs for every values file."""

from __future__ import annotations

import pytest

pytest.importorskip("helm_python", reason="the extra `chart` is not installed")

from tests.support.chart import VALUES, Object, rendered


@pytest.fixture(params=list(VALUES))
def objects(request: pytest.FixtureRequest) -> list[Object]:
    """What the chart renders with one of the values files."""
    return rendered(request.param)
