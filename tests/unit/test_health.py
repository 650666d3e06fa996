"""What the probes say follows what the engines say, until the server drains."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from samgate.api import server as module
from samgate.api.server import running
from samgate.config import Settings
from samgate.domain import Choose, FloatArray, Survivors
from samgate.engines.base import Capacity, Decoded, Images, Prompts
from samgate.errors import Unavailable
from samgate.serving.models import Model
from samgate.variants.mobilesam import SPEC
from scheduling_support import point, profile

PROFILE = profile(point("mobilesam", precision="moody"))


class MoodyEngine:
    """An engine that is as healthy as it is told to be."""

    name = precision = "moody"
    capacity = Capacity(1, 1, 1, 1)
    well = True

    async def encode(self, images: Images, deadline: float) -> list[FloatArray]:
        raise Unavailable("moody")

    async def decode(self, embeddings: Sequence[FloatArray], prompts: Prompts, deadline: float) -> Decoded:
        raise Unavailable("moody")

    async def survivors(self, embedding: FloatArray, prompts: Prompts, choose: Choose, deadline: float) -> Survivors:
        raise Unavailable("moody")

    async def healthy(self) -> bool:
        return self.well

    async def close(self) -> None:
        pass


async def test_health_follows_the_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BEAT_S", 0.01)
    engine = MoodyEngine()
    model = Model(SPEC, engine)
    target = f"unix:{tmp_path / 'socket'}"
    async with running(Settings(), [model], PROFILE, target, doors=False), grpc.aio.insecure_channel(target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)

        async def status() -> int:
            await asyncio.sleep(0.1)
            answer = await health.Check(health_pb2.HealthCheckRequest(service="samgate.v1.Segmentation"))
            return int(answer.status)

        assert await status() == health_pb2.HealthCheckResponse.SERVING
        engine.well = False
        assert await status() == health_pb2.HealthCheckResponse.NOT_SERVING
        engine.well = True
        assert await status() == health_pb2.HealthCheckResponse.SERVING
