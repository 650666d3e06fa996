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
from samgate.api.server import load_models, running
from samgate.config import Settings
from samgate.domain import Choose, FloatArray, Survivors
from samgate.engines.base import Capacity, Decoded, Images, Prompts
from samgate.errors import CompileError, InvalidArgument, Unavailable
from samgate.serving.models import Model
from samgate.variants.mobilesam import SPEC
from samgate.variants.spec import VariantSpec
from scheduling_support import point, profile

PROFILE = profile(point("mobilesam", precision="moody"))


class MoodyEngine:
    """An engine that is as healthy as it is told to be."""

    name = precision = "moody"
    capacity = Capacity(1, 1, 1, 1)
    well = True
    closed = False

    async def encode(self, images: Images, deadline: float) -> list[FloatArray]:
        raise Unavailable("moody")

    async def decode(self, embeddings: Sequence[FloatArray], prompts: Prompts, deadline: float) -> Decoded:
        raise Unavailable("moody")

    async def survivors(self, embedding: FloatArray, prompts: Prompts, choose: Choose, deadline: float) -> Survivors:
        raise Unavailable("moody")

    async def healthy(self) -> bool:
        return self.well

    async def close(self) -> None:
        self.closed = True


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


def test_what_was_loaded_is_closed_when_something_else_can_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[MoodyEngine] = []

    def load(spec: VariantSpec, *_: object) -> MoodyEngine:
        if spec.name == "mobilesam-512":
            raise CompileError("no")
        loaded.append(MoodyEngine())
        return loaded[-1]

    monkeypatch.setattr(module, "load_engine", load)
    with pytest.raises(CompileError):
        load_models(Settings(variants="mobilesam,mobilesam-768,mobilesam-512"), lambda message: None)
    assert [engine.closed for engine in loaded] == [True, True]
    loaded.clear()
    # The servers have what they have: a precision that isn't theirs is refused, and two names for one point are one.
    with pytest.raises(InvalidArgument, match="the servers have mobilesam at 'moody'"):
        load_models(Settings(variants="mobilesam,mobilesam:f32"), lambda message: None)
    assert all(engine.closed for engine in loaded)
