"""Packages of the extra `train`, which serving does without."""

from __future__ import annotations

from importlib.util import find_spec

from services.errors import ConfigurationError


def need(*modules: str) -> None:
    """Raises: ConfigurationError naming what is not installed, and how to install it."""
    if missing := [name for name in modules if find_spec(name) is None]:
        raise ConfigurationError(f"needs {' and '.join(missing)}; pip install 'medmax-serve[train]'")
