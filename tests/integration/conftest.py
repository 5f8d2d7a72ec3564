"""Fixtures that several files share."""

from tests.support.labelstudio import labelstudio_server

__all__ = ["labelstudio_server"]
