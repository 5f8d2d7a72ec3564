"""What Ray Serve raises around a call, as errors of the tree."""

from __future__ import annotations

import asyncio
import logging

import grpc.aio
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    gRPCStatusError,
)

from services.errors import DeadlineExceeded, MedMaxError, Overloaded, Unavailable
from services.rpc.status import known

log = logging.getLogger(__name__)
GONE = (RayActorError, DeploymentUnavailableError, ReplicaUnavailableError, TaskCancelledError)


def error_from(failure: BaseException, service: str) -> MedMaxError:
    """The error that `failure` of a call to deployment `service` means to the caller."""
    if isinstance(failure, RayTaskError):
        failure = failure.cause
    if isinstance(failure, gRPCStatusError):
        failure = failure.original_exception
    if isinstance(failure, MedMaxError):
        return failure
    if isinstance(failure, TimeoutError):
        return DeadlineExceeded("the request's time ran out", field="context.timeout_ms")
    if isinstance(failure, BackPressureError):
        return Overloaded(f"the {service} service's queue is full", retry_after_s=failure.retry_after_s or 1)
    if isinstance(failure, GONE):
        log.warning("%s replica lost: %s", service, type(failure).__name__)
        return Unavailable(f"the {service} service was interrupted; try again", retry_after_s=1)
    if isinstance(failure, asyncio.CancelledError):  # of the replica, not of this task
        return Unavailable(f"the {service} service stopped this request; try again", retry_after_s=1)
    if isinstance(failure, grpc.aio.AioRpcError):
        log.warning("%s replica: %s %s", service, failure.code(), failure.details())
        return Unavailable(f"the {service} service is out of reach; try again", retry_after_s=1)
    return known(failure)
