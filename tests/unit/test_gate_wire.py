"""The gate against connections that do what no gRPC client would: each harms itself alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gate_support import ECHO, LIMITS, SERVICE, gated
from loadtest.reliability import http2
from samgate.config import Settings


@asynccontextmanager
async def wired(port: int, settings: Mapping[int, int] | None = None) -> AsyncIterator[http2.Wire]:
    """A connection that does what no gRPC client would."""
    wire = await http2.Wire.connect(f"127.0.0.1:{port}", settings)
    try:
        yield wire
    finally:
        await wire.close()


def opened(path: str, stream: int) -> bytes:
    """A call's beginning."""
    return http2.frame(http2.HEADERS, http2.END_HEADERS, stream, http2.grpc_headers(path))


async def test_a_watcher_that_takes_nothing_holds_up_nobody() -> None:
    async with (
        gated(Settings(limits=LIMITS)) as server,
        server.channel() as channel,
        wired(server.port, {http2.INITIAL_WINDOW_SIZE: 0}) as wire,
    ):
        for stream in (1, 3, 5):
            wire.write(opened("/grpc.health.v1.Health/Watch", stream))
            wire.write(http2.frame(http2.DATA, http2.END_STREAM, stream, http2.message(b"")))
        async with asyncio.timeout(5):
            while server.gate.others < 3:
                await asyncio.sleep(0.01)
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
        answer = health_pb2.HealthCheckResponse
        assert (await watch.read()).status == answer.NOT_SERVING
        server.health.serving = True
        assert (await asyncio.wait_for(watch.read(), 3)).status == answer.SERVING
        async with asyncio.timeout(5):
            while server.gate.others > 1:
                await asyncio.sleep(0.05)


SETTINGS = http2.PREFACE + http2.frame(http2.SETTINGS)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
        http2.PREFACE + b"\xff" * 4096,
        SETTINGS + http2.frame(http2.HEADERS, http2.END_HEADERS, 1, b"\xff" * 99),
        SETTINGS + http2.frame(http2.DATA, 0, 7, b"x" * 1000),
        SETTINGS + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + b"x" * 10_000,
    ],
    ids=["HTTP/1", "TLS", "noise", "headers", "no such stream", "a huge frame"],
)
async def test_what_is_no_grpc_harms_its_own_connection_alone(data: bytes) -> None:
    async with gated(Settings(limits=LIMITS)) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        await writer.drain()
        assert await server.call(data=ECHO) == "OK"
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        assert await server.call(data=ECHO) == "OK"


async def test_floods_of_calls_that_are_taken_back_at_once_harm_nobody() -> None:
    """Rapid reset, CVE-2023-44487."""
    async with gated(Settings(limits=LIMITS)) as server:
        async with wired(server.port) as wire:
            for stream in range(1, 20_000, 2):
                wire.write(opened(f"/{SERVICE}/Embed", stream))
                wire.write(http2.frame(http2.RST_STREAM, 0, stream, b"\0\0\0\x08"))
                if stream % 200 == 1:
                    await asyncio.sleep(0)
            assert await server.call(data=ECHO) == "OK"
        assert await server.call(data=ECHO) == "OK"
        async with asyncio.timeout(10):
            while server.calls.in_flight:
                await asyncio.sleep(0.05)
