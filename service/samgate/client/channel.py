"""What both clients' channels are made of."""

from __future__ import annotations

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
