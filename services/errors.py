"""Every error that a caller may see, in one tree.

    MedMaxError                      code                 HTTP  gRPC
    ├── InvalidInput                 invalid_input        400   INVALID_ARGUMENT
    │   ├── UnsupportedField         unsupported_field    400   INVALID_ARGUMENT
    │   ├── UnsupportedMediaType     unsupported_media_type 415 INVALID_ARGUMENT
    │   ├── InvalidImage             invalid_image        400   INVALID_ARGUMENT
    │   ├── PayloadTooLarge          payload_too_large    413   INVALID_ARGUMENT
    │   └── ContextOverflow          context_overflow     400   INVALID_ARGUMENT
    ├── Unauthenticated              unauthenticated      401   UNAUTHENTICATED
    ├── PermissionDenied             permission_denied    403   PERMISSION_DENIED
    ├── NotFound                     not_found            404   NOT_FOUND
    │   └── ModelNotFound            model_not_found      404   NOT_FOUND
    ├── Overloaded                   overloaded           429   RESOURCE_EXHAUSTED
    │   └── RateLimited              rate_limited         429   RESOURCE_EXHAUSTED
    ├── Cancelled                    cancelled            499   CANCELLED
    ├── DeadlineExceeded             deadline_exceeded    504   DEADLINE_EXCEEDED
    ├── Unavailable                  unavailable          503   UNAVAILABLE
    ├── CheckpointError              checkpoint_error     500   FAILED_PRECONDITION
    ├── ConfigurationError           configuration_error  500   FAILED_PRECONDITION
    └── InternalError                internal_error       500   INTERNAL

Messages are written for the caller: they name the field and the limit and hold no path, no patient text and no
traceback. An unforeseen exception becomes `InternalError` with a reference that the log explains.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, ClassVar

import grpc


class MedMaxError(Exception):
    """Base of the tree.

    Args:
        message: one or two sentences for the caller.
        field: path of the offending field in the request (`messages[0].parts[1].image`), if there is one.
        retry_after_s: seconds after which trying again makes sense, if it ever does.
    """

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(self, message: str, *, field: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.field, self.retry_after_s)

    def under(self, prefix: str) -> MedMaxError:
        """The same error with its field placed below `prefix` (a hop knows the caller's name of its input)."""
        field = f"{prefix}.{self.field}" if self.field else prefix
        return type(self)(self.message, field=field, retry_after_s=self.retry_after_s)


def _rebuild(
    cls: type[MedMaxError], message: str, field: str | None, retry_after_s: float | None
) -> MedMaxError:
    return cls(message, field=field, retry_after_s=retry_after_s)


class InvalidInput(MedMaxError):
    """A field has a wrong type, value or length."""

    code, http_status, grpc_status = "invalid_input", 400, grpc.StatusCode.INVALID_ARGUMENT


class UnsupportedField(InvalidInput):
    """A field that would change the answer and that this service does not support, or does not know."""

    code = "unsupported_field"


class UnsupportedMediaType(InvalidInput):
    """A request body of another content type than the one that is read."""

    code, http_status = "unsupported_media_type", 415


class InvalidImage(InvalidInput):
    """The bytes are no picture, a damaged one or one of an unsupported kind."""

    code = "invalid_image"


class PayloadTooLarge(InvalidInput):
    """More bytes, pixels or characters than the limit named in the message."""

    code, http_status = "payload_too_large", 413


class ContextOverflow(InvalidInput):
    """Prompt and pictures do not fit the model's context."""

    code = "context_overflow"


class Unauthenticated(MedMaxError):
    """No key, or a wrong one."""

    code, http_status, grpc_status = "unauthenticated", 401, grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(MedMaxError):
    """The key is right and may not do this."""

    code, http_status, grpc_status = "permission_denied", 403, grpc.StatusCode.PERMISSION_DENIED


class NotFound(MedMaxError):
    """No such thing, or not this caller's."""

    code, http_status, grpc_status = "not_found", 404, grpc.StatusCode.NOT_FOUND


class ModelNotFound(NotFound):
    """The request names a model that is not served."""

    code = "model_not_found"


class Overloaded(MedMaxError):
    """A queue is full; nothing of the request was done."""

    code, http_status, grpc_status = "overloaded", 429, grpc.StatusCode.RESOURCE_EXHAUSTED


class RateLimited(Overloaded):
    """The key used up its requests per minute."""

    code = "rate_limited"


class Cancelled(MedMaxError):
    """The caller went away."""

    code, http_status, grpc_status = "cancelled", 499, grpc.StatusCode.CANCELLED


class DeadlineExceeded(MedMaxError):
    """The request's time ran out."""

    code, http_status, grpc_status = "deadline_exceeded", 504, grpc.StatusCode.DEADLINE_EXCEEDED


class Unavailable(MedMaxError):
    """A service is starting, going down or out of reach; trying again is safe."""

    code, http_status, grpc_status = "unavailable", 503, grpc.StatusCode.UNAVAILABLE


class CheckpointError(MedMaxError):
    """A checkpoint on disk is not what it claims; the message names the file and what to do."""

    code, http_status, grpc_status = "checkpoint_error", 500, grpc.StatusCode.FAILED_PRECONDITION


class ConfigurationError(MedMaxError):
    """A setting is wrong; the message names it."""

    code, http_status, grpc_status = "configuration_error", 500, grpc.StatusCode.FAILED_PRECONDITION


class InternalError(MedMaxError):
    """A defect of ours. The message carries only a reference; the log has the rest."""

    code = "internal_error"


def internal_error() -> InternalError:
    """A fresh `InternalError` whose message ends in a reference to log beside the traceback."""
    return InternalError(f"internal error, reference {uuid.uuid4().hex[:12]}")


def _tree(cls: type[MedMaxError]) -> list[type[MedMaxError]]:
    return [cls, *(leaf for child in cls.__subclasses__() for leaf in _tree(child))]


BY_CODE: dict[str, type[MedMaxError]] = {
    cls.code: cls for cls in _tree(MedMaxError) if cls is not MedMaxError
}


def from_wire(code: str, message: str, field: str | None, retry_after_s: float | None) -> MedMaxError:
    """The error that another service sent, by its stable code; an unknown code gives `InternalError`."""
    return BY_CODE.get(code, InternalError)(message, field=field, retry_after_s=retry_after_s)


def code_of(error: BaseException) -> str:
    """The code under which `error` is counted: its own, `cancelled`, or `internal_error` for what nobody foresaw."""
    if isinstance(error, MedMaxError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "internal_error"
