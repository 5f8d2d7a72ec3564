"""docs/operations.md names what there is."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

from tests.support.chart import ROOT

PAGE = ROOT / "docs" / "operations.md"


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "operations_alerts", ROOT / "scripts" / "operations_alerts.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_alerts_are_the_chart_s() -> None:
    script = _script()
    assert script.page() == PAGE.read_text(), "run make manifests"
    assert script.table().count("\n| [MedMax") == len(list((ROOT / "docs/runbooks").glob("MedMax*.md")))


def test_tests_that_it_names_exist() -> None:
    for name in re.findall(r"`(tests/[\w/.]+)`", PAGE.read_text()):
        assert (ROOT / name).exists(), name
