"""The administrators' port: health for probes that know neither TLS nor tokens, and reflection on loopback."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from samgate.api.health import SERVICE_NAME, Health
from samgate.config import Settings
from samgate.errors import Unavailable
from samgate.security.exposure import is_loopback

_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 8 * 1024),
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_allowed_incoming_connections", 64),
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.so_reuseport", 0),
)


class AdminServer:
    """Serves ``health`` and, if ``settings`` say so, reflection on ``services``. ``target`` is where, once started."""

    def __init__(self, settings: Settings, health: Health, services: Sequence[str]) -> None:
        admin = settings.admin
        self.target = f"{admin.host}:{admin.port}"
        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=64)
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        if admin.reflection == "on" or (admin.reflection == "auto" and is_loopback(admin.host)):
            reflection.enable_server_reflection((*services, SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self) -> None:
        """Listen. Raises Unavailable when the address is taken."""
        try:
            port = self._server.add_insecure_port(self.target)
        except RuntimeError as error:
            raise Unavailable(
                f"administration can't listen on {self.target}: {error}; choose another --admin-port"
            ) from error
        self.target = f"{self.target.rpartition(':')[0]}:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """Stop at once."""
        await self._server.stop(grace=None)
