"""Two operating points behind one gateway, which goes by a profile that says what it should believe of their speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from samgate.api.server import load_models, running
from samgate.client import AsyncClient
from samgate.config import EngineSettings, Limits, Scheduling, Settings
from samgate.errors import Infeasible, InvalidArgument, NotFound, NotInstalled, Overloaded
from samgate.scheduling.profile import DeviceProfile, Line
from scheduling_support import point, profile

SETTINGS = Settings(
    variants="mobilesam,mobilesam-512",
    engine=EngineSettings(precision="f32"),
    scheduling=Scheduling(client_header="who"),
    limits=Limits(max_concurrent_calls=64),
)
POINT = [[100, 120]]
DECODE = Line(0.0, 0.5)


def believed(large_s: float, small_s: float) -> DeviceProfile:
    """What the two take to encode an image."""
    return profile(
        point("mobilesam", encode=large_s, decode=DECODE, box=0.76, prompt=0.53),
        point("mobilesam-512", encode=small_s, decode=DECODE, box=0.68, prompt=0.41),
        shared=True,
    )


@asynccontextmanager
async def serving(folder: Path, device: DeviceProfile) -> AsyncIterator[AsyncClient]:
    models = await asyncio.to_thread(load_models, SETTINGS, lambda message: None)
    target = f"unix:{folder / 'socket'}"
    async with running(SETTINGS, models, device, target, doors=False), AsyncClient(target, retries=0) as client:
        yield client


async def test_deadlines_accuracy_and_names_decide_who_answers(installed: None, photo: bytes, tmp_path: Path) -> None:
    async with serving(tmp_path, believed(100.0, 5.0)) as client:
        with pytest.raises(Infeasible, match="smallest that would do is 100") as never:
            await client.segment(photo, points=POINT, min_accuracy=0.5, timeout_s=60)
        assert never.value.smallest_deadline_s == pytest.approx(100.5, rel=0.01)
        small = await client.segment(photo, points=POINT, timeout_s=60)
        assert (small.info.variant, small.info.decision.reason) == ("mobilesam-512", "deadline")
        assert small.info.decision.predicted_ms == pytest.approx(5500, rel=0.1)
        fresh = photo + b"\0"
        boxed = await client.segment(fresh, box=[10, 10, 200, 200], min_accuracy=0.6, timeout_s=60)
        assert boxed.info.decision.accuracy == pytest.approx(0.68)  # boxes are easier
        large = await client.segment(photo, points=POINT, timeout_s=600)
        assert (large.info.variant, large.info.decision.reason) == ("mobilesam", "most_accurate")
        assert large.info.handle != small.info.handle
        again = await client.segment(photo, points=POINT, timeout_s=60)
        assert (again.info.variant, again.info.embedding_cached) == ("mobilesam", True)  # held now, so it is in time
        assert small.info.handle is not None
        by_handle = await client.segment(small.info.handle, points=POINT, timeout_s=60)
        assert (by_handle.info.variant, by_handle.info.decision.reason) == ("mobilesam-512", "named")
        named = await client.segment(photo, points=POINT, variant="mobilesam-512:f32", timeout_s=600)
        assert named.info.variant == "mobilesam-512"
        with pytest.raises(InvalidArgument, match="was made by"):
            await client.segment(small.info.handle, points=POINT, variant="mobilesam", timeout_s=60)
        with pytest.raises(NotInstalled, match=r"mobilesam-512:int8.*samgate serve --variants mobilesam-512:int8"):
            await client.segment(photo, points=POINT, variant="mobilesam-512:int8", timeout_s=60)
        with pytest.raises(NotFound, match="no precision 'f33'; it has bf16"):
            await client.segment(photo, points=POINT, variant="mobilesam:f33", timeout_s=60)
        with pytest.raises(NotInstalled, match="mobilesam-768"):
            await client.embed(photo, variant="mobilesam-768", timeout_s=60)
        known = {variant.name: variant for variant in await client.variants()}
        (shown,) = known["mobilesam"].operating_points
        assert shown.name == "mobilesam:f32"
        assert shown.box_miou == pytest.approx(0.76)
        assert shown.encode_ms == 100_000
        told = known["mobilesam"]
        assert (told.background_points, told.mask_logits, told.max_points) == (True, True, None)
        assert told.strategies == ("grid", "hierarchical", "object_aware", "aop", "auto")
        few = known["efficientsam-ti"]
        assert (few.background_points, few.mask_logits, few.max_points) == (False, False, 6)
        assert known["fastsam-s"].strategies == ("grid", "auto")
        # By now calls have been seen to take a fraction of what the profile says: what was refused at first is done.
        outgrown = await client.segment(photo + b"\1", points=POINT, min_accuracy=0.5, timeout_s=60)
        assert outgrown.info.variant == "mobilesam"


async def test_what_a_full_server_cannot_do_in_time_it_refuses_at_once(
    installed: None, photo: bytes, tmp_path: Path
) -> None:
    async with serving(tmp_path, believed(1.0, 0.9)) as client:

        async def ask(number: int) -> str:
            began = asyncio.get_running_loop().time()
            try:
                await client.segment(photo + bytes([number]), points=POINT, timeout_s=20)
            except Overloaded as refused:
                waits.append(asyncio.get_running_loop().time() - began)
                hints.append(refused.retry_after_s or 0.0)
                return "refused"
            return "answered"

        waits: list[float] = []
        hints: list[float] = []
        outcomes = await asyncio.gather(*(ask(number) for number in range(60)))
        # The last may wait for those before it to be taken in; none waits for a deadline or an engine.
        assert max(waits) < 2
        assert 0 < min(hints) <= max(hints) < 60
        assert 5 <= outcomes.count("answered") <= 40
        assert outcomes.count("answered") + outcomes.count("refused") == 60
        assert await ask(99) == "answered"  # nothing is left of the others


async def test_a_flood_by_one_client_leaves_room_for_another(installed: None, photo: bytes, tmp_path: Path) -> None:
    async with serving(tmp_path, believed(0.6, 0.5)):
        target = f"unix:{tmp_path / 'socket'}"
        from samgate.api.v1 import segmentation_pb2 as pb
        from samgate.api.v1.segmentation_pb2_grpc import SegmentationStub

        async with grpc.aio.insecure_channel(target) as channel:
            stub = SegmentationStub(channel)

            async def ask(who: str, number: int) -> grpc.StatusCode:
                request = pb.SegmentRequest(
                    image=pb.Image(encoded=photo + who.encode() + bytes([number])),
                    prompts=[pb.Prompt(points=[pb.Point(x=100, y=120)])],
                )
                try:
                    await stub.Segment(request, timeout=20, metadata=(("who", who),))
                except grpc.aio.AioRpcError as error:
                    return error.code()
                return grpc.StatusCode.OK

            calm = [asyncio.create_task(ask("calm", 0))]
            await asyncio.sleep(0.1)
            flood = [asyncio.create_task(ask("flood", number)) for number in range(100)]
            await asyncio.sleep(1.0)
            calm += [asyncio.create_task(ask("calm", number)) for number in range(1, 4)]
            assert set(await asyncio.gather(*calm)) == {grpc.StatusCode.OK}
            codes = await asyncio.gather(*flood)
            assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert codes.count(grpc.StatusCode.OK) >= 3
