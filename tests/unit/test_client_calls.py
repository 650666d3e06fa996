"""Both clients against a gRPC server with synthetic answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import aclosing
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1 import segmentation_pb2_grpc
from samgate.client import AsyncClient, Client, Everything, EverythingSummary, Handle, Progress, prompt
from samgate.client.failures import RetryPolicy
from samgate.errors import (
    DeadlineExceeded,
    Infeasible,
    InvalidArgument,
    NotFound,
    Overloaded,
    SamgateError,
    Unavailable,
)

Behaviour = Callable[[grpc.ServicerContext], None]


class FakeGateway(segmentation_pb2_grpc.SegmentationServicer):
    """Answers at once, after what ``script`` holds for its calls has been done, one entry a call."""

    def __init__(self) -> None:
        self.script: list[Behaviour] = []
        self.requests: list[Any] = []
        self.remaining: list[float] = []
        self.cancelled = threading.Event()
        self.endless = False
        self.target = ""

    def _begin(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.remaining.append(context.time_remaining())
        if self.script:
            self.script.pop(0)(context)

    def Segment(self, request: pb.SegmentRequest, context: Any) -> pb.SegmentResponse:
        self._begin(request, context)
        mask = pb.Mask(packed_bits=b"\x80", area=1, predicted_iou=0.75)
        mask.bounding_box.CopyFrom(pb.Box(x0=0, y0=0, x1=1, y1=1))
        return pb.SegmentResponse(
            results=[pb.PromptMasks(masks=[mask])] * len(request.prompts),
            width=3,
            height=2,
            info=pb.AnswerInfo(variant="fake", handle="h", timings=pb.Timings(total_ms=4)),
        )

    def SegmentEverything(
        self, request: pb.SegmentEverythingRequest, context: Any
    ) -> Iterator[pb.SegmentEverythingResponse]:
        self._begin(request, context)
        context.add_callback(self.cancelled.set)
        for done in range(1, 4):
            yield pb.SegmentEverythingResponse(progress=pb.Progress(prompts_done=done, prompts_total=3))
        while self.endless and context.is_active():
            time.sleep(0.01)
        found = pb.EverythingMask(mask=pb.Mask(packed_bits=b"\x80"))
        yield pb.SegmentEverythingResponse(masks=pb.EverythingMasks(masks=[found], width=3, height=2))
        yield pb.SegmentEverythingResponse(summary=pb.EverythingSummary(mask_count=1, width=3, height=2))

    def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        self._begin(request, context)
        return pb.EmbedResponse(handle="h", width=3, height=2, expires_in_s=60)

    def ListVariants(self, request: pb.ListVariantsRequest, context: Any) -> pb.ListVariantsResponse:
        self._begin(request, context)
        known = pb.Variant(
            name="fake",
            served=True,
            published_box_miou=0.5,
            prompts=pb.PromptSupport(background_points=True, max_points=6, text=True),
            strategies=[pb.STRATEGY_GRID, pb.STRATEGY_OBJECT_AWARE],
        )
        return pb.ListVariantsResponse(variants=[known, pb.Variant(name="other")])


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    fake = FakeGateway()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    segmentation_pb2_grpc.add_SegmentationServicer_to_server(fake, server)
    checks = health.HealthServicer()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    fake.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield fake
    server.stop(0).wait()


def fail(code: grpc.StatusCode, message: str = "no", **trailers: int) -> Behaviour:
    """Trailers have underscores for dashes."""

    def behave(context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata(tuple((name.replace("_", "-"), str(value)) for name, value in trailers.items()))
        context.abort(code, message)

    return behave


UNAVAILABLE = fail(grpc.StatusCode.UNAVAILABLE, "draining")


def unavailable_after(seconds: float) -> Behaviour:
    def behave(context: grpc.ServicerContext) -> None:
        time.sleep(seconds)
        UNAVAILABLE(context)

    return behave


def test_every_call_of_the_blocking_client(gateway: FakeGateway) -> None:
    seen: list[Progress] = []
    with Client(gateway.target) as client:
        assert client.healthy()
        embedded = client.embed(np.zeros((2, 3, 3), np.uint8))
        assert (embedded.handle, embedded.size) == (Handle("h"), (2, 3))
        answer = client.segment(embedded, points=[0, 0], format="packed_bits", variant="fake")
        assert gateway.requests[-1].image.handle == "h"
        assert answer.masks[0].to_numpy().tolist() == [[True, False, False], [False, False, False]]
        assert (answer.info.handle, answer.info.timings.total_ms) == (Handle("h"), 4)
        several = client.segment(b"x", prompts=[prompt(points=[0, 0]), prompt(box=[0, 0, 1, 1])])
        assert len(several.results) == 2
        everything = client.everything(b"x", on_progress=seen.append, format="packed_bits", points_per_side=4)
        assert gateway.requests[-1].grid.points_per_side == 4
        check_everything(everything, seen)
        known, other = client.variants()
        assert (known.published_box_miou, other.published_box_miou) == (0.5, None)
        assert (known.background_points, known.mask_logits, known.max_points) == (True, False, 6)
        assert (known.strategies, other.max_points) == (("grid", "object_aware"), None)
        assert (known.text, other.text) == (True, False)
        client.segment(b"x", text="a black dog")
        assert list(gateway.requests[-1].prompts) == [pb.Prompt(text="a black dog")]


async def test_every_call_of_the_async_client(gateway: FakeGateway) -> None:
    seen: list[Progress] = []
    async with AsyncClient(gateway.target) as client:
        assert await client.healthy()
        embedded = await client.embed(b"x")
        answer = await client.segment(embedded, points=[0, 0], format="packed_bits")
        assert answer.masks[0].to_numpy().sum() == 1
        await client.segment(b"x", text="a black dog")
        assert list(gateway.requests[-1].prompts) == [pb.Prompt(text="a black dog")]
        everything = await client.everything(b"x", on_progress=seen.append, format="packed_bits", points_per_side=4)
        check_everything(everything, seen)
        assert [variant.name for variant in await client.variants()] == ["fake", "other"]


def check_everything(everything: Everything, seen: list[Progress]) -> None:
    assert [done.prompts_done for done in seen] == [1, 2, 3]
    assert everything.size == (2, 3)
    assert everything.masks[0].mask.to_numpy().sum() == 1


def test_an_unavailable_server_is_tried_again_within_one_deadline(gateway: FakeGateway) -> None:
    gateway.script = [unavailable_after(0.3), UNAVAILABLE, UNAVAILABLE]
    with Client(gateway.target) as client:
        client.segment(b"x", points=[0, 0], timeout_s=5)
    assert len(gateway.requests) == 4
    first, *others = gateway.remaining
    assert first <= 5.1  # deadlines travel rounded up
    assert all(seconds < first - 0.2 for seconds in others)


def test_a_full_server_is_tried_again_when_it_says(gateway: FakeGateway) -> None:
    full = fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_ms=200)
    gateway.script = [full]
    start = time.monotonic()
    with Client(gateway.target) as client:
        client.segment(b"x", points=[0, 0])
        assert time.monotonic() - start >= 0.2
        gateway.script = [full]
        with pytest.raises(Overloaded, match="full") as caught:
            client.segment(b"x", points=[0, 0], timeout_s=0.15)
    assert caught.value.retry_after_s == 0.2
    assert len(gateway.requests) == 3


def test_errors_are_samgates_and_chained(gateway: FakeGateway) -> None:
    gateway.script = [fail(grpc.StatusCode.INVALID_ARGUMENT, "image.raw: is odd")]
    with Client(gateway.target) as client, pytest.raises(InvalidArgument) as caught:
        client.embed(b"x")
    assert caught.value.field == "image.raw"
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert len(gateway.requests) == 1


def test_retries_can_be_switched_off(gateway: FakeGateway) -> None:
    gateway.script = [UNAVAILABLE]
    with Client(gateway.target, retries=0) as client, pytest.raises(Unavailable, match="draining"):
        client.variants()


def test_the_deadline_ends_a_call(gateway: FakeGateway) -> None:
    gateway.script = [lambda context: time.sleep(0.5)]
    with Client(gateway.target, timeout_s=0.1) as client, pytest.raises(DeadlineExceeded, match="before the server"):
        client.segment(b"x", points=[0, 0])


async def test_everything_has_more_time_than_other_calls_unless_a_deadline_is_named(gateway: FakeGateway) -> None:
    with Client(gateway.target) as client, Client(gateway.target, timeout_s=7) as hasty:
        for asking in (client, hasty):
            asking.embed(b"x")
            asking.everything(b"x")
        client.everything(b"x", timeout_s=9)
    async with AsyncClient(gateway.target) as concurrent:
        await concurrent.embed(b"x")
        await concurrent.everything(b"x")
    assert gateway.remaining == pytest.approx([60, 300, 7, 7, 9, 60, 300], abs=2)


def test_a_retry_with_too_little_time_left_says_what_the_first_try_said(gateway: FakeGateway) -> None:
    busy = fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", retry_after_ms=100)
    short = fail(grpc.StatusCode.FAILED_PRECONDITION, "deadline: too short", smallest_deadline_ms=900)
    gateway.script = [busy, short, short]
    with Client(gateway.target, timeout_s=1) as client:
        with pytest.raises(Overloaded, match="busy"):
            client.embed(b"x")
        with pytest.raises(Infeasible, match="too short") as caught:
            client.embed(b"x")
    assert caught.value.smallest_deadline_s == 0.9


def test_nobody_there() -> None:
    with Client("127.0.0.1:1", retries=1) as client:
        assert not client.healthy(timeout_s=1)
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            client.variants(timeout_s=5)


def test_a_closed_client_says_so(gateway: FakeGateway) -> None:
    client = Client(gateway.target)
    client.variants()
    client.close()
    client.close()
    with pytest.raises(SamgateError, match="closed"):
        client.variants()


def test_closing_ends_calls_of_other_threads(gateway: FakeGateway) -> None:
    gateway.script = [lambda context: time.sleep(0.5)]
    client = Client(gateway.target)
    timer = threading.Timer(0.1, client.close)
    timer.start()
    with pytest.raises(SamgateError, match=r"closed|CANCELLED"):
        client.segment(b"x", points=[0, 0])
    timer.join()


def test_closing_ends_pauses_between_tries(gateway: FakeGateway) -> None:
    gateway.script = [UNAVAILABLE] * 3
    client = Client(gateway.target)
    client._policy = RetryPolicy(first_s=0.5)
    timer = threading.Timer(0.05, client.close)
    timer.start()
    with pytest.raises(SamgateError, match="closed"):
        client.segment(b"x", points=[0, 0])
    timer.join()


def test_a_stream_is_tried_again_before_its_first_event(gateway: FakeGateway) -> None:
    gateway.script = [UNAVAILABLE]
    with Client(gateway.target) as client:
        *_, last = client.everything_events(b"x")
    assert isinstance(last, EverythingSummary)
    assert len(gateway.requests) == 2


def test_leaving_a_stream_cancels_the_call(gateway: FakeGateway) -> None:
    gateway.endless = True
    with Client(gateway.target) as client:
        for _ in client.everything_events(b"x"):
            break
        assert gateway.cancelled.wait(5)


async def test_the_async_client_retries_and_maps_errors(gateway: FakeGateway) -> None:
    gateway.script = [UNAVAILABLE, fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_ms=10)]
    async with AsyncClient(gateway.target) as client:
        await client.segment(b"x", points=[0, 0])
        assert len(gateway.requests) == 3
        gateway.script = [UNAVAILABLE]
        assert len([event async for event in client.everything_events(b"x", format="packed_bits")]) == 5
        gateway.script = [fail(grpc.StatusCode.NOT_FOUND, "gone")]
        with pytest.raises(NotFound, match="gone"):
            await client.segment(Handle("old"), points=[0, 0])
    with pytest.raises(SamgateError, match="closed"):
        await client.variants()


async def test_cancelling_a_task_cancels_its_call(gateway: FakeGateway) -> None:
    gateway.endless = True
    async with AsyncClient(gateway.target) as client:
        task = asyncio.create_task(client.everything(b"x"))
        while not gateway.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(gateway.cancelled.wait, 5)
        gateway.cancelled.clear()
        async with aclosing(client.everything_events(b"x")) as events:
            await anext(events)
        assert await asyncio.to_thread(gateway.cancelled.wait, 5)
