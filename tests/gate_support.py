"""A gate on a real gRPC server whose RPCs do next to nothing, and what calls it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import BytesValue
from grpc_health.v1 import health_pb2_grpc

from samgate.api.calls import CURRENT, Calls
from samgate.api.gate import Gate
from samgate.api.health import Health
from samgate.api.metrics import Metrics
from samgate.api.server import channel_options
from samgate.config import Auth, Limits, Settings
from samgate.scheduling.queue import Priority
from samgate.security.identity import Identities
from samgate.security.tokens import make_token

SERVICE = "test.Service"
TOKEN, STORED = make_token()
BATCH, BATCH_STORED = make_token()
LIMITS = Limits(receive_s=0.5, send_s=0.5, max_message_bytes=2**20)
CLIENTS = f"""
clients:
  - {{name: studio, tokens: ["{STORED}"], proxy: true, concurrent: 2}}
  - {{name: batch, tokens: ["{BATCH_STORED}"], rpcs: [Segment], priority: bulk}}
"""


class Servicer:
    """``Segment`` answers with who asked, ``Embed`` when it is let, ``SegmentEverything`` with megabytes."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Priority]] = []
        self.go_on = asyncio.Event()

    async def segment(self, request: BytesValue, _: Any) -> BytesValue:
        call = CURRENT.get()
        self.seen.append((call.client, call.at_best))
        return request

    async def embed(self, request: BytesValue, _: Any) -> BytesValue:
        await self.go_on.wait()
        return request

    async def everything(self, _: BytesValue, __: Any) -> AsyncIterator[BytesValue]:
        for _number in range(200):
            yield BytesValue(value=b"x" * 2**20)


class Gated:
    """A server behind a gate, and what calls it."""

    def __init__(self, settings: Settings) -> None:
        self.metrics = Metrics()
        self.calls = Calls(settings, self.metrics, Identities(settings))
        self.servicer = Servicer()
        self.health = Health(SERVICE)
        self.gate = Gate(SERVICE, self.calls, settings.limits)
        self.server = grpc.aio.server(interceptors=(self.gate,), options=channel_options(settings.limits))
        coding: Any = {
            "request_deserializer": BytesValue.FromString,
            "response_serializer": BytesValue.SerializeToString,
        }
        handlers: Any = {
            "Segment": grpc.unary_unary_rpc_method_handler(self.servicer.segment, **coding),
            "Embed": grpc.unary_unary_rpc_method_handler(self.servicer.embed, **coding),
            "SegmentEverything": grpc.unary_stream_rpc_method_handler(self.servicer.everything, **coding),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    def channel(self) -> Any:
        """A connection of its own; bytes go in and out."""
        own = (("grpc.use_local_subchannel_pool", 1),)
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=own)

    async def call(
        self, rpc: str = "Segment", token: str | None = None, *metadata: tuple[str, str], data: bytes = b"hello"
    ) -> str:
        """The status, with its details."""
        headers = [("authorization", f"Bearer {token}")] if token else []
        async with self.channel() as channel:
            method = channel.unary_unary(f"/{SERVICE}/{rpc}")
            try:
                await method(data, timeout=10, metadata=(*headers, *metadata))
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name} {error.details()}"
        return "OK"

    def counted(self, rpc: str, code: str) -> float:
        """Calls that the metrics know of."""
        return self.metrics.registry.get_sample_value("samgate_requests_total", {"rpc": rpc, "code": code}) or 0.0


@asynccontextmanager
async def gated(settings: Settings) -> AsyncIterator[Gated]:
    one = Gated(settings)
    await one.server.start()
    try:
        yield one
    finally:
        await one.server.stop(grace=None)


def asking(folder: Path, limits: Limits = LIMITS) -> Settings:
    path = folder / "clients.yaml"
    path.write_text(CLIENTS)
    scheduling = replace(Settings().scheduling, client_header="x-user")
    return Settings(limits=limits, auth=Auth(clients=str(path)), scheduling=scheduling)


ECHO = BytesValue(value=b"hello").SerializeToString()
