from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.suite.phantom_data import write_phantom_data

COUNT = 8


@pytest.fixture(scope="session")
def phantom_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight rows of every task."""
    folder = tmp_path_factory.mktemp("suite") / "data"
    write_phantom_data(folder, 3, COUNT)
    return folder
