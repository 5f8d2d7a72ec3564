"""Settings from outside, checked: the first thing wrong ends in an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from services.errors import ConfigurationError

M = TypeVar("M", bound=BaseModel)


def checked(model: type[M], values: Mapping[str, Any], field: str) -> M:
    """`model` made of `values`.

    Raises:
        ConfigurationError: the field below `field` that is wrong, and its limit; never the value.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = ".".join(str(part) for part in (field, *first["loc"]))
        raise ConfigurationError(first["msg"], field=name) from None
