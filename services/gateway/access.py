"""Who may use which adapter, and the names under which models are asked for."""

from __future__ import annotations

from services.config import Settings
from services.errors import ConfigurationError, ModelNotFound
from services.gateway.auth import LOCAL_CALLER, ApiKey
from services.llm.validation import NO_ADAPTER


class Access:
    """What each caller may use of what is served.

    Raises:
        ConfigurationError: an adapter is kept for a caller that no key names.
    """

    def __init__(self, settings: Settings) -> None:
        self._base = settings.model_id
        self._adapters = tuple(settings.adapters)
        self._callers = {name: frozenset(callers) for name, callers in settings.adapter_callers.items()}
        known = {ApiKey.parse(entry.get_secret_value()).name for entry in settings.api_keys} or {LOCAL_CALLER}
        for name, callers in self._callers.items():
            if unknown := sorted(callers - known):
                raise ConfigurationError(
                    f"{name} is kept for {unknown[0]}, the name of no key", field="MEDMAX_ADAPTER_CALLERS"
                )

    def check(self, adapter: str, caller: str) -> None:
        """One error for what is not there and what is not for this caller.

        Raises:
            ModelNotFound: `caller` may use no such adapter.
        """
        if adapter and adapter not in self._of(caller):
            raise ModelNotFound(NO_ADAPTER, field="adapter")

    def models(self, caller: str) -> list[str]:
        """Ids of all that the caller may name as `model`, the base first."""
        return [self._base, *(model_name(self._base, adapter) for adapter in self._of(caller))]

    def _of(self, caller: str) -> list[str]:
        return [name for name in self._adapters if caller in self._callers.get(name, (caller,))]


def model_name(base: str, adapter: str) -> str:
    """`base`, or `base:adapter`."""
    return f"{base}:{adapter}" if adapter else base


def split_model(model: str) -> tuple[str, str]:
    """Base and adapter of `base:adapter`; `:adapter` leaves the base to the installation."""
    base, _, adapter = model.partition(":")
    return (base, adapter) if adapter else (model, "")
