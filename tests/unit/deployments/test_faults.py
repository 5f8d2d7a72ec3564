"""What Ray Serve raises becomes an error that a caller can act on."""

import asyncio
import pickle

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RequestCancelledError,
    gRPCStatusError,
)

from services import errors
from services.deployments.faults import error_from

CASES = [
    (errors.InvalidImage("bad", field="image"), errors.InvalidImage),
    (gRPCStatusError(errors.NotFound("none"), grpc.StatusCode.NOT_FOUND, "none"), errors.NotFound),
    (TimeoutError(), errors.DeadlineExceeded),
    (BackPressureError(3, 2), errors.Overloaded),
    (ActorDiedError(), errors.Unavailable),
    (ActorUnavailableError("gone", None), errors.Unavailable),
    (DeploymentUnavailableError(DeploymentID("llm", "medmax")), errors.Unavailable),
    (RequestCancelledError("r"), errors.Unavailable),
    (asyncio.CancelledError(), errors.Unavailable),
    (AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), Metadata(), "h2"), errors.Unavailable),
    (KeyError("patient Müller"), errors.InternalError),
]


@pytest.mark.parametrize(("raised", "expected"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_every_failure_has_its_error(raised: BaseException, expected: type[errors.MedMaxError]) -> None:
    error = error_from(raised, "llm")
    assert type(error) is expected
    assert "Müller" not in str(error)


def test_the_error_inside_a_rays_task_error_comes_out_whole() -> None:
    cause = errors.ContextOverflow("too long", field="prompt_ids")
    error = error_from(RayTaskError("Generate", "trace", cause).as_instanceof_cause(), "llm")
    assert type(error) is errors.ContextOverflow
    assert error.field == "prompt_ids"


def test_errors_cross_processes_with_all_they_hold() -> None:
    error = pickle.loads(pickle.dumps(errors.Overloaded("full", field="f", retry_after_s=2.0)))
    assert (type(error), error.message, error.field, error.retry_after_s) == (
        errors.Overloaded,
        "full",
        "f",
        2.0,
    )
