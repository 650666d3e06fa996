"""gRPC's health service (grpc.health.v1), as Kubernetes and load balancers ask it.

Not grpcio-health-checking's servicer: that writes to watchers under a lock, so that one who takes nothing stops all
others, and whoever tells it the status. Here watchers look for themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc as rpc

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Health"].full_name
LIVE = "live"
"""A service that serves as long as the event loop turns, draining or not: for liveness probes."""

_LOOK_EVERY_S = 0.5


class Health(rpc.HealthServicer):
    """Says of each of ``services``, of the whole server (``""``) and of :data:`LIVE` whether it serves."""

    def __init__(self, *services: str) -> None:
        self._services = ("", *services)
        self.serving = False

    async def Check(self, request: pb.HealthCheckRequest, context: Any) -> pb.HealthCheckResponse:
        """The status now; NOT_FOUND for a service that isn't here."""
        status = self._status(request.service)
        if status == pb.HealthCheckResponse.SERVICE_UNKNOWN:
            known = ", ".join(repr(name) for name in (*self._services, LIVE))
            await context.abort(grpc.StatusCode.NOT_FOUND, f"service: {request.service[:64]!r} is none of {known}")
        return pb.HealthCheckResponse(status=status)

    async def Watch(self, request: pb.HealthCheckRequest, _: Any) -> AsyncIterator[pb.HealthCheckResponse]:
        """The status now and whenever it changes."""
        last = None
        while True:
            status = self._status(request.service)
            if status != last:
                yield pb.HealthCheckResponse(status=status)
                last = status
            await asyncio.sleep(_LOOK_EVERY_S)

    def _status(self, service: str) -> Any:
        statuses = pb.HealthCheckResponse
        if service == LIVE:
            return statuses.SERVING
        if service not in self._services:
            return statuses.SERVICE_UNKNOWN
        return statuses.SERVING if self.serving else statuses.NOT_SERVING
