"""Errors cross gRPC and come back as themselves."""

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from hypothesis import given, settings
from hypothesis import strategies as st

from services import errors
from services.rpc import error_of, status_of


def _over_the_wire(error: errors.MedMaxError) -> errors.MedMaxError:
    status = status_of(error)
    failure = AioRpcError(status.code, Metadata(), Metadata(*status.trailing), status.details)
    return error_of(failure, "llm")


@pytest.mark.parametrize("cls", errors.BY_CODE.values(), ids=errors.BY_CODE)
def test_every_error_of_the_tree_survives_the_wire(cls: type[errors.MedMaxError]) -> None:
    back = _over_the_wire(cls("too big: at most 3", field="messages[0].parts[1].image", retry_after_s=2))
    assert type(back) is cls
    assert (back.message, back.field, back.retry_after_s) == (
        "too big: at most 3",
        "messages[0].parts[1].image",
        2,
    )


@given(st.text(max_size=60), st.one_of(st.none(), st.text(min_size=1, max_size=60)))
@settings(max_examples=50, deadline=None)
def test_any_field_name_a_caller_invents_makes_legal_metadata(message: str, field: str | None) -> None:
    status = status_of(errors.UnsupportedField(message, field=field))
    assert all(value.isascii() and value.isprintable() for _, value in status.trailing)
    assert _over_the_wire(errors.UnsupportedField(message, field=field)).field == field


def test_statuses_without_our_code_still_become_errors() -> None:
    cases = {
        grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
        grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
        grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
        grpc.StatusCode.UNKNOWN: errors.InternalError,
    }
    for code, cls in cases.items():
        error = error_of(AioRpcError(code, Metadata(), Metadata(), "ipv4:127.0.0.1:5 refused"), "decoder")
        assert type(error) is cls
    assert (
        "127.0.0.1"
        not in error_of(
            AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), "ipv4:127.0.0.1:5"), "llm"
        ).message
    )


def test_details_stay_below_the_limit_of_metadata() -> None:
    assert len(status_of(errors.InvalidInput("x" * 100_000)).details) <= 2048
