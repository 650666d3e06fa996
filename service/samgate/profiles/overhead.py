"""What a request takes besides the stages that have lines: gRPC, messages, the event loop, Python's lock."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import grpc.aio
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from samgate.client import Client, Timings
from samgate.client.channel import HEALTH_METHOD
from samgate.profiles.fit import Origin, percentile_95
from samgate.profiles.pictures import grid, jpeg, picture

_CALLS = {"measured": 100, "quick": 30}
_WARM_UP = 5
_MEGAPIXELS = 0.8
_GATEWAY_RATIO = 16.0
"""A gateway's overhead at the 95th percentile as a multiple of an empty call's median. On two shared cores, in seven
runs: 4.5 to 10.1 ms, and 0.36 to 0.51 ms."""


def gateway_overhead(target: str, variant: str, origin: Origin) -> float:
    """Seconds at the 95th percentile, of the gateway at ``target``: a client's time for one prompt on an image that is
    embedded there, less the stages that the answer tells. Raises what the gateway answers.

    A quick measurement makes fewer calls. It can't go by their median: most calls take a third of what the slow ones
    do, which wait for a thread that holds Python's lock.
    """
    image = picture(_MEGAPIXELS)
    points = grid(_CALLS[origin], (image.shape[0], image.shape[1]))
    seconds: list[float] = []
    with Client(target) as client:
        embedded = client.embed(jpeg(image), variant=variant)
        for turn in range(-_WARM_UP, len(points)):
            started = time.perf_counter()
            answer = client.segment(embedded, points=points[turn], variant=variant)
            elapsed = time.perf_counter() - started
            if turn >= 0:
                seconds.append(max(0.0, elapsed - _stages_s(answer.info.timings)))
    return percentile_95(seconds)


async def estimated_overhead() -> float:
    """The same where there is no gateway, as it is about to start and wants a profile: estimated from calls of an empty
    gRPC server in this process."""
    server = grpc.aio.server()
    service = health.aio.HealthServicer()
    await service.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="samgate-") as folder:
        target = f"unix:{Path(folder) / 'empty.sock'}"
        server.add_insecure_port(target)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(target) as channel:
                check = channel.unary_unary(
                    HEALTH_METHOD,
                    request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                    response_deserializer=health_pb2.HealthCheckResponse.FromString,
                )
                for turn in range(-_WARM_UP, _CALLS["quick"]):
                    started = time.perf_counter()
                    await check(health_pb2.HealthCheckRequest())
                    if turn >= 0:
                        seconds.append(time.perf_counter() - started)
        finally:
            await server.stop(grace=None)
    return _GATEWAY_RATIO * float(np.median(seconds))


def _stages_s(timings: Timings) -> float:
    stages = timings.imaging_ms, timings.queue_ms, timings.encode_ms, timings.decode_ms, timings.masks_ms
    return sum(stages) / 1e3
