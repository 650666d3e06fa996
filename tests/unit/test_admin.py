"""The administrators' port: reflection only where it is meant to be."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from samgate.api.admin import AdminServer
from samgate.api.health import Health
from samgate.config import Admin, Settings


@pytest.mark.parametrize(
    ("admin", "code"),
    [
        (Admin(port=0), grpc.StatusCode.OK),
        (Admin(port=0, reflection="off"), grpc.StatusCode.UNIMPLEMENTED),
        (Admin(host="0.0.0.0", port=0), grpc.StatusCode.UNIMPLEMENTED),
        (Admin(host="0.0.0.0", port=0, reflection="on"), grpc.StatusCode.OK),
    ],
)
async def test_reflection_is_for_this_machine_unless_meant_for_others(admin: Admin, code: grpc.StatusCode) -> None:
    server = AdminServer(Settings(admin=admin), Health(), ("samgate.v1.Segmentation",))
    await server.start()
    try:
        assert await asyncio.to_thread(reflected, server.target) == (code, code is grpc.StatusCode.OK)
    finally:
        await server.stop()


def reflected(target: str) -> tuple[grpc.StatusCode, bool]:
    """How reflection answers, and whether it tells anything.

    By a blocking client: that of asyncio calls it INTERNAL when a refusal comes before the request is written.
    """
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(f"127.0.0.1:{target.rpartition(':')[2]}") as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([asked]), timeout=10)
        try:
            answers = list(call)
        except grpc.RpcError:
            answers = []
        return call.code(), bool(answers)
