"""Errors in OpenAI's shape."""

from __future__ import annotations

import logging
import math
import re
import traceback
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse

from services.errors import InvalidInput, MedMaxError, UnsupportedField, internal_error
from services.gateway.rest.body import path_of

log = logging.getLogger(__name__)

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_body(error: MedMaxError) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    status = error.http_status
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": str(error), "type": kind, "param": error.field, "code": error.code}}


def error_response(error: MedMaxError) -> JSONResponse:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.http_status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="medmax"'
    return JSONResponse(error_body(error), error.http_status, headers)


def known(error: Exception) -> MedMaxError:
    """`error` itself if it is of the tree; else an `InternalError` whose reference is logged with the traceback.

    An unforeseen exception's own message may quote a prompt, so it is not logged: its type and where it was raised are.
    """
    if isinstance(error, MedMaxError):
        return error
    wrapped = internal_error()
    places = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s: %s\n%s", wrapped, type(error).__qualname__, places)
    return wrapped


def invalid(error: ValidationError) -> InvalidInput:
    """The first complaint of a request model, with the field's path."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return complaint(first["type"], first["loc"], first["msg"])


def complaint(kind: str, location: Sequence[str | int], message: str) -> InvalidInput:
    """One of pydantic's complaints. Parts of a path like `<text>` name a branch of a union, not a field."""
    field = _shortened(path_of([part for part in location if not str(part).startswith("<")]) or "body")
    if kind == "extra_forbidden":
        return UnsupportedField("unknown field", field=field)
    return InvalidInput(_in_our_words(kind, message), field=field)


def _in_our_words(kind: str, message: str) -> str:
    """`message` of pydantic without the names of its types: "must have at least 1 item"."""
    if kind == "missing":
        return "is required"
    message = re.sub(r"^(Input|List|String|Dictionary) should (be|have|match)\b", r"must \2", message)
    return re.sub(r" after validation, not \d+$", "", message)


def _shortened(field: str) -> str:
    return field.encode("ascii", "backslashreplace").decode()[:200]
