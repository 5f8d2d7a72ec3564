"""The OpenAI-compatible REST front."""

from services.gateway.rest.app import create_app

__all__ = ["create_app"]
