"""`grpc.health.v1`, answered by asking the services themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from grpc_health.v1 import health_pb2

from services.errors import MedMaxError, NotFound

log = logging.getLogger(__name__)

WATCH_PERIOD_S = 2.0
Status = health_pb2.HealthCheckResponse


class HealthServicer:
    """`Check`, `List` and `Watch` over named checks; the empty name means all of them.

    Args:
        checks: full gRPC service name → coroutine function that raises a `MedMaxError` when that service is sick.
    """

    def __init__(self, checks: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
        self._checks = dict(checks)

    async def Check(self, request: Any, context: Any = None) -> health_pb2.HealthCheckResponse:
        if request.service and request.service not in self._checks:
            raise NotFound("no such service here", field="service")
        return Status(status=await self._status(request.service))

    async def List(self, request: Any, context: Any = None) -> health_pb2.HealthListResponse:
        return health_pb2.HealthListResponse(
            statuses={name: Status(status=await self._status(name)) for name in ["", *self._checks]}
        )

    async def Watch(self, request: Any, context: Any = None) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        sent = None
        while True:
            known = not request.service or request.service in self._checks
            status = await self._status(request.service) if known else Status.SERVICE_UNKNOWN
            if status != sent:
                sent = status
                yield Status(status=status)
            await asyncio.sleep(WATCH_PERIOD_S)

    async def _status(self, service: str) -> Any:
        names = [service] if service else list(self._checks)
        try:
            await asyncio.gather(*(self._checks[name]() for name in names))
        except MedMaxError:
            return Status.NOT_SERVING
        except Exception:
            log.exception("health check failed")
            return Status.NOT_SERVING
        return Status.SERVING
