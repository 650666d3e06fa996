"""What both clients' channels are made of."""

from __future__ import annotations

import grpc

from samgate.errors import InvalidArgument
from samgate.security.exposure import is_loopback

Metadata = tuple[tuple[str, str], ...]

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 60.0
DEFAULT_EVERYTHING_TIMEOUT_S = 300.0
"""A thousand prompts on one image: half a minute on two idle cores without bf16."""
HEALTH_TIMEOUT_S = 5.0
HEALTH_METHOD = "/grpc.health.v1.Health/Check"

OPTIONS: tuple[tuple[str, int], ...] = (
    # The server bounds its answers; a mask of 50 megapixels is more than gRPC's default of 4 MiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Notice dead peers during long calls. The server allows pings from every 10 s on.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # gRPC's default of one second would outlast most retries, which then fail without having tried to connect.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


def metadata_of(target: str, token: str | None, credentials: grpc.ChannelCredentials | None) -> Metadata:
    """What goes with each call to ``target``. Raises InvalidArgument rather than sending ``token`` where it could be
    read on the way."""
    if token is None:
        return ()
    if not token or not token.isascii() or not token.isprintable():
        raise InvalidArgument("token", "must be printable ASCII, and not empty")
    if credentials is None and not is_loopback(target if target.startswith("unix:") else target.rpartition(":")[0]):
        raise InvalidArgument("token", f"is only sent to {target} by TLS: give credentials (or, to a command, --ca)")
    return (("authorization", f"Bearer {token}"),)
