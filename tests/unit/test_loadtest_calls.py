"""What goes over the wire: the deadline that is left, who asks, the token; and what a server's answers count as."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from loadtest.calls import Caller, open_channel
from loadtest.plan import Plan, Source
from loadtest.targets import Files
from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1.segmentation_pb2_grpc import SegmentationServicer, add_SegmentationServicer_to_server
from samgate.errors import InvalidArgument, SamgateError
from samgate.load.requests import Photo
from samgate.simulation.arrival import Arrival
from samgate.simulation.outcome import End

WORKLOADS = Path(__file__).resolve().parents[2] / "loadtest" / "workloads"
CLICK = Arrival(1.0, 7, 0.3, "point", 1, 0.5, "alice", tier="clicks")
PHOTOS = [Photo(b"photo", (40, 30))]


class Recorder(SegmentationServicer):
    """Notes what it is asked, and answers or fails as it is told."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, Any]] = []
        self.left_s: list[float] = []
        self.embedded: list[tuple[bytes, str]] = []
        self.failure: tuple[grpc.StatusCode, str] | None = None

    def _note(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        self.left_s.append(context.time_remaining())
        if self.failure is not None:
            code, reason = self.failure
            context.set_trailing_metadata((("refusal", reason),) if reason else ())
            context.abort(code, "no")

    def Segment(self, request: pb.SegmentRequest, context: Any) -> pb.SegmentResponse:
        self._note(context)
        return pb.SegmentResponse(info=pb.AnswerInfo(variant="m", precision="bf16", embedding_cached=True))

    def SegmentEverything(self, request: pb.SegmentEverythingRequest, context: Any) -> Iterator[Any]:
        self._note(context)
        yield pb.SegmentEverythingResponse(progress=pb.Progress(prompts_done=1))
        info = pb.AnswerInfo(variant="n", precision="f32")
        yield pb.SegmentEverythingResponse(summary=pb.EverythingSummary(info=info))

    def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        self._note(context)
        self.embedded.append((request.image.encoded, request.variant))
        return pb.EmbedResponse()

    def ListVariants(self, request: pb.ListVariantsRequest, context: Any) -> pb.ListVariantsResponse:
        self._note(context)
        points = [pb.OperatingPoint(name="m:bf16"), pb.OperatingPoint(name="m:int8")]
        known = pb.Variant(name="other", operating_points=[pb.OperatingPoint(name="other:f32")])
        return pb.ListVariantsResponse(variants=[pb.Variant(name="m", served=True, operating_points=points), known])


@pytest.fixture
def recorder() -> Iterator[tuple[Recorder, str]]:
    server, recorder = grpc.server(ThreadPoolExecutor(2)), Recorder()
    add_SegmentationServicer_to_server(recorder, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield recorder, f"127.0.0.1:{port}"
    server.stop(None).wait(5)


def caller(target: str, name: str = "warm", token: str = "secret") -> Caller:
    plan = Plan((Source("User", str(WORKLOADS / f"{name}.yaml"), True),), connections=2, salt="salt")
    return Caller(plan, 0, PHOTOS, lambda: open_channel(target, "", token, Files()), token)


def test_requests_carry_what_is_left_of_their_time_and_who_asks(recorder: tuple[Recorder, str]) -> None:
    server, target = recorder
    asking = caller(target)
    outcome = asking.ask(3, CLICK, lambda: 1.1)
    assert (outcome.end, outcome.point, outcome.cached, outcome.ended_s) == (End.ON_TIME, "m:bf16", True, 1.1)
    assert server.metadata[0]["authorization"] == "Bearer secret"
    assert server.metadata[0]["samgate-client"] == "alice"
    # Due at 1.5, sent at 1.1: the server may take 0.4 s.
    assert 0.2 < server.left_s[0] <= 0.4
    # An answer after that counts as late, whoever was to blame.
    assert asking.ask(4, CLICK, iter([1.1, 1.6]).__next__).end is End.LATE
    asking.close()


def test_segment_everything_is_read_to_its_end(recorder: tuple[Recorder, str]) -> None:
    asking = caller(recorder[1])
    everything = Arrival(0.0, 1, 0.3, "point", 64, 5.0, everything=True)
    outcome = asking.ask(0, everything, lambda: 2.0)
    assert (outcome.end, outcome.point) == (End.ON_TIME, "n:f32")
    asking.close()


@pytest.mark.parametrize(
    ("code", "reason", "end", "shown"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", End.REFUSED, "busy"),
        (grpc.StatusCode.FAILED_PRECONDITION, "deadline", End.REFUSED, "deadline"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", End.DROPPED, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.UNAVAILABLE, "", End.LOST, "UNAVAILABLE"),
        (grpc.StatusCode.UNAUTHENTICATED, "", End.LOST, "UNAUTHENTICATED"),
    ],
)
def test_failures_count_as_what_they_are(
    recorder: tuple[Recorder, str], code: grpc.StatusCode, reason: str, end: End, shown: str
) -> None:
    server, target = recorder
    server.failure = code, reason
    asking = caller(target)
    outcome = asking.ask(0, CLICK, lambda: 1.2)
    assert (outcome.end, outcome.reason, outcome.ended_s) == (end, shown, 1.2)
    asking.close()


def test_priming_embeds_every_image_that_will_be_asked_about_by_all_that_is_served(
    recorder: tuple[Recorder, str],
) -> None:
    server, target = recorder
    asking = caller(target)
    points = asking.reach()
    assert points == ("m:bf16", "m:int8")
    asking.prime(points)
    asked = {arrival.image for _, arrival in asking.plan.arrivals(0)}
    assert len(asked) == 16
    embedded = {data for data, point in server.embedded if point == "m:int8"}
    assert len(embedded) == 16
    assert embedded == {b"photo" + b"salt 0 " + image.to_bytes(8, "big") for image in asked}
    with pytest.raises(InvalidArgument, match="are 16, and 20 operating points are served"):
        asking.prime(["m"] * 20)
    asking.close()
    cold = caller(target, "cold")
    with pytest.raises(InvalidArgument, match="are no catalogue"):
        cold.prime(points)
    cold.close()


def test_a_server_that_refuses_the_token_is_told_of_before_the_run(recorder: tuple[Recorder, str]) -> None:
    server, target = recorder
    server.failure = grpc.StatusCode.UNAUTHENTICATED, ""
    asking = caller(target)
    with pytest.raises(SamgateError, match="can't be used: no"):
        asking.reach()
    asking.close()


def test_no_proxy_of_the_environment_gets_between_it_and_this_machine(
    recorder: tuple[Recorder, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:9")
    asking = caller(recorder[1])
    assert asking.reach()
    asking.close()


def test_channels_are_opened_to_allowed_targets_alone() -> None:
    with pytest.raises(InvalidArgument, match="not this machine"):
        open_channel("db:1", "", "", Files())
    with pytest.raises(SamgateError, match="unencrypted"):
        open_channel("db:1", "db:1", "secret", Files())
    open_channel("db:1", "db:1", "", Files()).close()
