"""The gate, on a real gRPC server whose RPCs do next to nothing: who gets in, with how much, and how slowly."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gate_support import BATCH, ECHO, LIMITS, SERVICE, TOKEN, asking, gated
from samgate.config import Settings
from samgate.scheduling.queue import Priority


async def test_who_calls_is_asked_and_told_to_what_answers(tmp_path: Path) -> None:
    async with gated(asking(tmp_path)) as server:
        assert (await server.call()).startswith("UNAUTHENTICATED this server wants to know who calls")
        assert (await server.call(token="samgate_x")).startswith("UNAUTHENTICATED authorization: the token is none")
        assert await server.call(token=TOKEN, data=ECHO) == "OK"
        assert await server.call("Segment", BATCH, ("x-user", "root"), data=ECHO) == "OK"
        assert await server.call("Segment", TOKEN, ("x-user", "anna"), data=ECHO) == "OK"
        # Only a proxy is believed about others.
        assert server.servicer.seen == [
            ("studio", Priority.INTERACTIVE),
            ("batch", Priority.BULK),
            ("anna", Priority.INTERACTIVE),
        ]
        denied = await server.call("Embed", BATCH, data=ECHO)
        assert denied == "PERMISSION_DENIED client 'batch' may not call Embed; it may call Segment"
        assert server.counted("Segment", "UNAUTHENTICATED") == 2
        assert server.counted("Embed", "PERMISSION_DENIED") == 1


async def test_a_stranger_is_refused_before_the_request_is_read(tmp_path: Path) -> None:
    async with gated(asking(tmp_path)) as server, server.channel() as channel:
        # The request never comes: an answer means that nobody waited for it.
        call = channel.stream_unary(f"/{SERVICE}/Segment")(timeout=5)
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_calls_under_way_have_the_client_s_bound(tmp_path: Path) -> None:
    async with gated(asking(tmp_path)) as server:
        waiting = [asyncio.create_task(server.call("Embed", TOKEN, data=ECHO)) for _ in range(2)]
        while server.calls.in_flight < 2:
            await asyncio.sleep(0.01)
        third = await server.call("Segment", TOKEN, data=ECHO)
        assert third == "RESOURCE_EXHAUSTED client 'studio' has 2 calls under way; its limit is 2"
        server.servicer.go_on.set()
        assert await asyncio.gather(*waiting) == ["OK", "OK"]
        assert await server.call("Segment", TOKEN, data=ECHO) == "OK"


async def test_a_request_has_its_time_to_arrive() -> None:
    async with gated(Settings(limits=LIMITS)) as server, server.channel() as channel:
        began = asyncio.get_running_loop().time()
        call = channel.stream_unary(f"/{SERVICE}/Segment")()
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await call.details() == "request: has not arrived within 0.5 s"
        assert asyncio.get_running_loop().time() - began < 3
        assert server.calls.in_flight == 0


async def test_what_is_no_message_is_the_client_s_fault() -> None:
    async with gated(Settings(limits=LIMITS)) as server, server.channel() as channel:
        malformed = await server.call(data=b"\xff\xff\xff")
        assert malformed == "INVALID_ARGUMENT request: is not a valid protobuf message of this RPC"
        call = channel.stream_unary(f"/{SERVICE}/Segment")(timeout=5)
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await call.details() == "request: is missing: the stream ended before it"
        assert (await server.call("Nothing")).startswith("UNIMPLEMENTED")


async def test_a_client_that_takes_nothing_loses_its_call_and_others_go_on() -> None:
    async with gated(Settings(limits=LIMITS)) as server, server.channel() as channel:
        stuck = channel.unary_stream(f"/{SERVICE}/SegmentEverything")(ECHO)
        await stuck.read()
        async with asyncio.timeout(10):
            while server.calls.in_flight:
                assert await server.call(data=ECHO) == "OK"
                await asyncio.sleep(0.05)
        assert server.counted("SegmentEverything", "DEADLINE_EXCEEDED") == 1
        stuck.cancel()


async def test_sizes_are_bounded() -> None:
    async with gated(Settings(limits=LIMITS)) as server:
        large = BytesValue(value=b"x" * (2**20 + 1)).SerializeToString()
        assert (await server.call(data=large)).startswith("RESOURCE_EXHAUSTED")
        crowded = await server.call("Segment", None, ("x-padding", "x" * 40_000), data=ECHO)
        assert crowded.startswith("RESOURCE_EXHAUSTED")
        assert await server.call(data=ECHO) == "OK"


async def test_requests_under_way_are_bounded_together() -> None:
    limits = replace(LIMITS, max_total_bytes=1_500_000)
    async with gated(Settings(limits=limits)) as server:
        large = BytesValue(value=b"x" * 1_000_000).SerializeToString()
        waiting = asyncio.create_task(server.call("Embed", data=large))
        while not server.gate.held_bytes:
            await asyncio.sleep(0.01)
        refused = await server.call(data=large)
        assert refused.startswith("RESOURCE_EXHAUSTED requests of 1000004 bytes are under way; with these 1000004 it")
        assert await server.call(data=ECHO) == "OK"
        server.servicer.go_on.set()
        assert await waiting == "OK"
        assert await server.call(data=large) == "OK"
        assert server.gate.held_bytes == 0


async def test_compressed_requests_are_refused_so_that_none_can_unfold() -> None:
    async with gated(Settings(limits=LIMITS)) as server, server.channel() as channel:
        bomb = BytesValue(value=b"\0" * 50_000_000).SerializeToString()
        call = channel.unary_unary(f"/{SERVICE}/Segment")(bomb, timeout=10, compression=grpc.Compression.Gzip)
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_connections_are_bounded_and_free_again_when_closed() -> None:
    limits = replace(LIMITS, max_connections=2)
    async with gated(Settings(limits=limits)) as server:
        first, second = server.channel(), server.channel()
        for channel in (first, second):
            await channel.channel_ready()
        async with server.channel() as third:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(third.channel_ready(), 1)
            await first.close()
            await asyncio.wait_for(third.channel_ready(), 10)
        await second.close()


async def test_one_connection_has_so_many_calls_at_once() -> None:
    limits = replace(LIMITS, max_streams=2)
    async with gated(Settings(limits=limits)) as server, server.channel() as channel:
        method = channel.unary_unary(f"/{SERVICE}/Embed")
        calls = [asyncio.ensure_future(method(ECHO, timeout=10)) for _ in range(8)]
        async with asyncio.timeout(10):
            while server.calls.in_flight < 2:
                await asyncio.sleep(0.01)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert server.calls.in_flight == 2
        server.servicer.go_on.set()
        # The client keeps the others back, or is told that they weren't begun, and may try again.
        for ended in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(ended, BaseException):
                assert isinstance(ended, grpc.aio.AioRpcError)
                assert ended.code() is grpc.StatusCode.UNAVAILABLE


async def test_more_calls_than_the_server_takes_are_refused_unread() -> None:
    limits = replace(LIMITS, max_concurrent_calls=1)
    async with gated(Settings(limits=limits)) as server:
        waiting = asyncio.create_task(server.call("Embed", data=ECHO))
        while not server.calls.in_flight:
            await asyncio.sleep(0.01)
        assert await server.call(data=ECHO) == "RESOURCE_EXHAUSTED 1 calls are under way, which is the limit"
        server.servicer.go_on.set()
        assert await waiting == "OK"


async def test_a_connection_of_age_is_replaced_and_no_call_is_lost() -> None:
    limits = replace(LIMITS, connection_age_s=0.3)
    async with gated(Settings(limits=limits)) as server, server.channel() as channel:
        method = channel.unary_unary(f"/{SERVICE}/Segment")
        answers = []
        for _ in range(60):
            answers.append(await method(ECHO, timeout=5))
            await asyncio.sleep(0.02)
        assert len(answers) == 60


async def test_floods_of_pings_end_their_connection() -> None:
    own = (
        ("grpc.keepalive_time_ms", 50),
        ("grpc.keepalive_timeout_ms", 5000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    )
    async with gated(Settings(limits=LIMITS)) as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=own) as channel:
            method: Any = channel.unary_unary(f"/{SERVICE}/Embed")
            call = method(ECHO, timeout=10)
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert await call.details() == "Too many pings"
        assert await server.call(data=ECHO) == "OK"


async def test_health_is_anybody_s_and_watchers_see_changes(tmp_path: Path) -> None:
    async with gated(asking(tmp_path)) as server, server.channel() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = health_pb2.HealthCheckResponse
        assert (
            await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=5)
        ).status == answer.NOT_SERVING
        assert (await stub.Check(health_pb2.HealthCheckRequest(service="live"), timeout=5)).status == answer.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=5)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert (await watch.read()).status == answer.NOT_SERVING
        server.health.serving = True
        assert (await watch.read()).status == answer.SERVING
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"), timeout=10)
        assert (await unknown.read()).status == answer.SERVICE_UNKNOWN


async def test_no_token_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with gated(asking(tmp_path)) as server:
            await server.call(token=TOKEN, data=ECHO)
            await server.call(token=TOKEN[:-1], data=ECHO)
    assert caplog.records
    assert not any(TOKEN[:-1] in str(vars(record)) for record in caplog.records)
