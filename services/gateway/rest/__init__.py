"""The OpenAI-compatible REST front."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.gateway.rest.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    # The application imports torch; who only wants the error objects (the proxy) need not.
    if name == "create_app":
        from services.gateway.rest.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
