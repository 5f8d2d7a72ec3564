"""Errors of the tree to gRPC statuses and back.

A status carries, beside code and details, trailing metadata:

    medmax-code    the error's stable code (`invalid_image`)
    medmax-field   path of the offending field, percent-encoded where it is not plain ASCII
    retry-after    seconds, where trying again makes sense
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote, unquote

import grpc
import grpc.aio

from services import errors
from services.errors import MedMaxError, internal_error

log = logging.getLogger(__name__)

CODE_KEY, FIELD_KEY, RETRY_KEY = "medmax-code", "medmax-field", "retry-after"
MAX_FIELD_CHARS = 256
MAX_DETAILS_CHARS = 2048  # trailers share gRPC's 8 KiB of metadata

_BY_STATUS: dict[grpc.StatusCode, type[MedMaxError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: errors.ConfigurationError,
}


@dataclass(frozen=True)
class RpcStatus:
    """What a failed call ends with."""

    code: grpc.StatusCode
    details: str
    trailing: tuple[tuple[str, str], ...]


def status_of(error: MedMaxError) -> RpcStatus:
    """The status that tells a caller about `error`."""
    trailing = [(CODE_KEY, error.code)]
    if error.field:
        trailing.append((FIELD_KEY, quote(error.field[:MAX_FIELD_CHARS], safe="[]().,:_-$/ ")))
    if error.retry_after_s is not None:
        trailing.append((RETRY_KEY, str(max(1, math.ceil(error.retry_after_s)))))
    return RpcStatus(error.grpc_status, str(error)[:MAX_DETAILS_CHARS], tuple(trailing))


def known(error: BaseException) -> MedMaxError:
    """`error` itself if it is of the tree; else a logged `InternalError` whose message is its reference."""
    if isinstance(error, MedMaxError):
        return error
    wrapped = internal_error()
    # Its message may quote a prompt, so the log gets its type and where it was raised.
    log.error(
        "%s: %s\n%s", wrapped, type(error).__qualname__, "".join(traceback.format_tb(error.__traceback__))
    )
    return wrapped


async def abort(context: grpc.aio.ServicerContext[object, object], error: MedMaxError) -> NoReturn:
    """Ends the call with `error`'s status."""
    status = status_of(error)
    await context.abort(status.code, status.details, status.trailing)


def error_of(failure: grpc.aio.AioRpcError, service: str) -> MedMaxError:
    """The error behind a failed call to `service` (a name for messages, such as `llm`)."""
    trailing = _pairs(failure.trailing_metadata())
    status, details = failure.code(), failure.details() or ""
    code = trailing.get(CODE_KEY)
    if code is not None:
        field = unquote(trailing[FIELD_KEY]) if FIELD_KEY in trailing else None
        retry = trailing.get(RETRY_KEY)
        message = details.removeprefix(f"{field}: ") if field else details
        return errors.from_wire(code, message, field, float(retry) if retry else None)
    if status is grpc.StatusCode.UNAVAILABLE:
        log.warning("%s is out of reach: %s", service, details)
        return errors.Unavailable(f"the {service} service is out of reach; try again", retry_after_s=1)
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded("the request's time ran out", field="context.timeout_ms")
    if status in _BY_STATUS:
        return _BY_STATUS[status](f"{service}: {details}")
    wrapped = internal_error()
    log.error("%s: %s answered %s: %s", wrapped, service, status, details)
    return wrapped


def _pairs(metadata: Iterable[Any] | None) -> dict[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}
