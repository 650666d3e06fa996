"""Triton fails while calls are under way: each ends served, and right, or clearly refused; nothing is left over."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samgate.api.server import load_models, load_profile, running
from samgate.client import AsyncClient
from samgate.config import EngineSettings, Settings
from samgate.engines.base import Images, Prompts
from samgate.engines.triton import discovery, servers
from samgate.engines.triton.engine import TritonEngine
from samgate.engines.triton.region import SHARED_MEMORY
from samgate.errors import SamgateError
from samgate.serving.gateway import Gateway
from samgate.triton.local import local_triton
from samgate.triton.server import ServerOptions, TritonServer
from samgate.variants.mobilesam import SPEC
from support import in_small_shared_memory

CLEAR = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
SIZE = 256
SHARED_MIB = 384
POINTS = [(60.0, 60.0), (180.0, 150.0), (128.0, 30.0)]


def picture(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Another one for each number, with the same masks but for a pixel: one in the corner is of another colour."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.stack([x // 2, y // 2, np.full_like(x, 90)], -1)
    image[(x - 60) ** 2 + (y - 60) ** 2 < 40**2] = (230, 200, 60)
    image[100:200, 140:220] = (30, 30, 90)
    image[-1, -1] = (number % 200, number // 200, 0)
    return image.astype(np.uint8)


class Load:
    """Clients that ask without pause; ``outcomes`` counts how their calls ended. Wrong masks are ``WRONG``."""

    def __init__(self, gateway: Gateway, target: str) -> None:
        self.gateway = gateway
        self.target = target
        self.outcomes: Counter[str] = Counter()
        self._number = 0

    @property
    def engine(self) -> TritonEngine:
        (model,) = self.gateway.models.values()
        engine = model.engine
        assert isinstance(engine, TritonEngine)
        return engine

    async def once(self, client: AsyncClient, deadline_s: float = 20.0) -> str:
        """How one call on a new picture ends."""
        self._number += 1
        try:
            answer = await client.segment(picture(self._number), points=POINTS[:1], timeout_s=deadline_s)
        except SamgateError as error:
            return error.status
        mask = answer.masks[0].to_numpy()
        # The disc, whatever else happened: the mask of another picture, or half of one, is not that.
        y, x = np.mgrid[:SIZE, :SIZE]
        disc = (x - 60) ** 2 + (y - 60) ** 2 < 40**2
        return "ok" if (mask.astype(bool) & disc).sum() > 0.9 * (mask.astype(bool) | disc).sum() else "WRONG"

    async def during(self, event: Callable[[], Awaitable[None]], clients: int = 4, deadline_s: float = 20.0) -> None:
        """Load before, during and after ``event``."""
        over = asyncio.Event()

        async def ask() -> None:
            async with AsyncClient(self.target, retries=0) as client:
                while not over.is_set():
                    outcome = await self.once(client, deadline_s)
                    self.outcomes[outcome] += 1
                    await asyncio.sleep(0 if outcome == "ok" else 0.2)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(ask())
            await self.answers(clients)
            await event()
            await asyncio.sleep(1)
            over.set()
        assert self.outcomes["ok"] > 0
        assert set(self.outcomes) <= {"ok"} | CLEAR

    async def answers(self, calls: int, within_s: float = 30.0) -> None:
        """So many calls were served."""
        until = time.monotonic() + within_s
        while self.outcomes["ok"] < calls:
            assert time.monotonic() < until, self.outcomes
            await asyncio.sleep(0.1)

    async def has_calls_at_once(self, calls: int, within_s: float = 20.0) -> None:
        """Engine and scheduler know of servers for so many."""
        until = time.monotonic() + within_s
        while (self.engine.capacity.parallel_calls, self.instances) != (calls, calls):
            assert time.monotonic() < until, (self.engine.capacity, self.instances)
            await asyncio.sleep(0.05)

    @property
    def instances(self) -> int:
        """That the scheduler reckons with."""
        (device,) = self.gateway.scheduler.devices.values()
        return device.profile.instances

    async def recovers(self, within_s: float = 30.0) -> None:
        """Calls are served again."""
        until = time.monotonic() + within_s
        async with AsyncClient(self.target, retries=0) as client:
            while (outcome := await self.once(client)) != "ok":
                assert time.monotonic() < until, outcome
                await asyncio.sleep(0.1)


@asynccontextmanager
async def loaded(tmp_path: Path, *servers: TritonServer, **triton: object) -> AsyncIterator[Load]:
    """A gateway on ``servers``. At the end it must have given back all that it lent."""
    settings = Settings(
        engine=EngineSettings(name="triton", max_encode_batch=2), cache=replace(Settings().cache, max_bytes=32 * 2**20)
    )
    options = {"endpoints": ",".join(server.grpc for server in servers), "call_timeout_s": 5.0} | triton
    settings = replace(settings, triton=replace(settings.triton, **options))  # type: ignore[arg-type]
    before = regions()
    models = await asyncio.to_thread(load_models, settings, lambda message: None)
    profile = await load_profile(settings, models, lambda message: None)
    async with running(settings, models, profile, f"unix:{tmp_path / 'socket'}", doors=False) as ready:
        load = Load(ready.server.gateway, ready.server.target)
        yield load
        engine = load.engine
        load.gateway.cache.clear()
        # What a call that timed out had is its own for as long as it may still run.
        until = time.monotonic() + settings.triton.call_timeout_s + 1
        while engine.lent_bytes > 0 and time.monotonic() < until:
            await asyncio.sleep(0.1)
        assert engine.lent_bytes == 0
    assert regions() == before


def regions() -> set[str]:
    """Of this process: others come and go with theirs."""
    return {path.name for path in SHARED_MEMORY.glob(f"samgate-gateway-{os.getpid()}-*")}


@contextmanager
def started() -> Iterator[TritonServer]:
    with local_triton({SPEC.name: "auto"}, options=ServerOptions(drain_s=2)) as server:
        yield server


@pytest.fixture(scope="module")
def one_server(installed: None) -> Iterator[TritonServer]:
    with started() as one:
        yield one


@pytest.fixture
def server(one_server: TritonServer) -> Iterator[TritonServer]:
    """Up again, should a test fail before it has seen to that itself."""
    yield one_server
    if one_server.process.poll() is not None:
        one_server.restart()


def stub_of(server: TritonServer, model: str) -> int:
    for pid in server.stub_pids():
        if f"/{model}/" in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    raise AssertionError(f"{model} has no process")


async def test_a_killed_server_loses_nothing_that_another_can_serve(server: TritonServer, tmp_path: Path) -> None:
    with started() as second:
        async with loaded(tmp_path, server, second) as load:

            async def kill() -> None:
                server.process.kill()
                await asyncio.sleep(3)
                await asyncio.to_thread(server.restart)

            await load.during(kill)
            assert set(load.outcomes) == {"ok"}
            # It is asked again: the other one may go now.
            await asyncio.sleep(4)
            second.process.kill()
            await load.recovers(within_s=0)


async def test_servers_behind_a_name_come_and_go_and_nothing_is_lost(
    server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One server under two addresses: what leaves takes its registration of the shared memory along."""
    first, second = server.grpc, server.grpc.replace("127.0.0.1", "localhost")
    there = [first]
    monkeypatch.setattr(discovery, "look_up", lambda urls: list(there))
    monkeypatch.setattr(servers, "_LOOK_UP_EVERY_S", 0.2)
    async with loaded(tmp_path, endpoints="dns:///triton:8001") as load:
        alone = load.engine.capacity.parallel_calls

        async def come_and_go() -> None:
            there.append(second)
            await load.has_calls_at_once(2 * alone)
            there.append("127.0.0.1:9")  # one that isn't ready is not used
            await asyncio.sleep(1)
            there[:] = [second]
            await load.has_calls_at_once(alone)
            await load.answers(load.outcomes["ok"] + 8)
            there.clear()  # no answer from the name service says nothing of the servers
            await load.answers(load.outcomes["ok"] + 8)

        await load.during(come_and_go)
        assert set(load.outcomes) == {"ok"}


async def test_without_another_the_fallback_serves(server: TritonServer, tmp_path: Path) -> None:
    async with loaded(tmp_path, server, fallback=True) as load:

        async def kill() -> None:
            server.process.kill()
            await asyncio.sleep(1)
            # Several images at once as well, and prompts on several embeddings of before.
            pictures = np.zeros((2, 1024, 1024, 3), np.uint8)
            deadline = time.monotonic() + 30
            embeddings = await load.engine.encode(Images(pictures, np.full((2, 2), 1024, np.int32)), deadline)
            coords, labels = np.full((2, 1, 2, 2), 300, np.float32), np.tile(np.array([1, -1], np.int32), (2, 1, 1))
            decoded = await load.engine.decode(embeddings, Prompts(coords, labels), deadline)
            assert decoded.low_res_masks.shape == (2, 1, 4, 256, 256)

        await load.during(kill)
        assert set(load.outcomes) == {"ok"}
        assert await load.engine.healthy()
    await asyncio.to_thread(server.restart)


async def test_a_killed_server_alone_is_a_clear_refusal_until_it_is_back(server: TritonServer, tmp_path: Path) -> None:
    async with loaded(tmp_path, server, outage_s=1.0) as load:

        async def kill() -> None:
            server.process.kill()
            await asyncio.sleep(3)
            assert not await load.engine.healthy()
            started = time.monotonic()
            async with AsyncClient(load.target, retries=0) as client:
                assert await load.once(client) == "UNAVAILABLE"
            assert time.monotonic() - started < 2

        await load.during(kill)
        assert load.outcomes["UNAVAILABLE"] > 0
        await asyncio.to_thread(server.restart)
        await load.recovers()
        assert await load.engine.healthy()


@pytest.mark.parametrize("model", ["mobilesam_encoder", "mobilesam_decoder"])
async def test_a_killed_stub_is_replaced_and_calls_wait_for_it(
    server: TritonServer, tmp_path: Path, model: str
) -> None:
    async with loaded(tmp_path, server, outage_s=20.0) as load:

        async def kill() -> None:
            killed = stub_of(server, model)
            os.kill(killed, signal.SIGKILL)
            await load.recovers()
            assert stub_of(server, model) != killed

        await load.during(kill)
        assert set(load.outcomes) == {"ok"}


async def test_a_hung_server_is_left_alone_and_what_it_writes_later_harms_nobody(
    server: TritonServer, tmp_path: Path
) -> None:
    async with loaded(tmp_path, server, call_timeout_s=3.0, outage_s=3.0) as load:

        async def hang() -> None:
            server.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(8)
            assert not await load.engine.healthy()
            server.process.send_signal(signal.SIGCONT)
            await load.recovers()

        await load.during(hang, deadline_s=5)
        assert set(load.outcomes) & {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
        assert await load.engine.healthy()


async def test_a_hung_model_is_loaded_anew(server: TritonServer, tmp_path: Path) -> None:
    async with loaded(tmp_path, server, call_timeout_s=3.0, outage_s=30.0) as load:

        async def hang() -> None:
            hung = stub_of(server, "mobilesam_encoder")
            os.kill(hung, signal.SIGSTOP)
            await load.recovers(within_s=60)
            # Triton waits for it, and has another in the meantime.
            os.kill(hung, signal.SIGCONT)
            until = time.monotonic() + 20
            while hung in server.stub_pids():
                assert time.monotonic() < until
                await asyncio.sleep(0.1)

        await load.during(hang, deadline_s=60)
        assert set(load.outcomes) == {"ok"}


def test_a_full_shared_memory_ends_in_served_or_refused_calls(installed: None) -> None:
    told = in_small_shared_memory([sys.executable, __file__], mebibytes=SHARED_MIB)
    assert "served while full" in told
    assert "recovered" in told


async def in_small_shared_memory_of_our_own() -> None:
    """Somebody else fills /dev/shm, to the last page, while calls are under way."""
    filler = SHARED_MEMORY / "filler"
    with started() as server, tempfile.TemporaryDirectory() as folder:
        async with loaded(Path(folder), server) as load:

            async def fill() -> None:
                with filler.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(SHARED_MEMORY).free)
                before = load.outcomes["ok"]
                await asyncio.sleep(8)
                if load.outcomes["ok"] > before:
                    print("served while full", load.outcomes)
                filler.unlink()

            await load.during(fill)
            await load.recovers()
            print("recovered", load.outcomes)


if __name__ == "__main__":
    asyncio.run(in_small_shared_memory_of_our_own())
