"""Hostile requests against a running gateway: it answers each with a deliberate status, goes on, and doesn't grow.

``SAMGATE_FUZZ_REQUESTS`` says how many requests of each of the two kinds are sent (default 200).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import cv2
import grpc
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samgate.api.v1 import segmentation_pb2 as pb
from support import Process, serving

# A valid grid may ask for minutes of work: running into the deadline is an answer, too.
EVERYTHING_TIMEOUT_S = 0.5
REQUESTS = int(os.environ.get("SAMGATE_FUZZ_REQUESTS", "200"))
DELIBERATE = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
fuzzed = settings(
    max_examples=REQUESTS, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def file_of(kind: str, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    ok, data = cv2.imencode(kind, pixels)
    assert ok
    return data.tobytes()


FILES = [file_of(kind, seed) for kind in (".jpg", ".png", ".webp") for seed in range(2)]


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` cut, overwritten, doubled or filled up somewhere."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(changed) - 1, 0)))
        piece = draw(st.binary(max_size=8))
        match draw(st.sampled_from(["cut", "overwrite", "insert", "repeat"])):
            case "cut":
                del changed[at : at + draw(st.integers(1, 64))]
            case "overwrite":
                changed[at : at + len(piece)] = piece
            case "insert":
                changed[at:at] = piece
            case _:
                changed[at:at] = changed[at : at + 64] * 2
    return bytes(changed)


coordinate = st.one_of(st.floats(width=32), st.floats(0, 60, width=32))
points = st.builds(pb.Point, x=coordinate, y=coordinate, label=st.integers(-1, 4))
boxes = st.builds(pb.Box, x0=coordinate, y0=coordinate, x1=coordinate, y1=coordinate)
masks = st.one_of(st.just(b""), st.binary(max_size=64), st.just(bytes(256 * 256 * 4)))
prompts = st.builds(pb.Prompt, points=st.lists(points, max_size=4), box=st.one_of(st.none(), boxes), mask_logits=masks)
worded_prompts = st.builds(
    pb.Prompt,
    text=st.text(max_size=80) | st.sampled_from(["dog " * 250, "dog " * 251]),
    points=st.lists(points, max_size=1),
)
good_prompts = st.builds(
    pb.Prompt,
    points=st.lists(
        st.builds(pb.Point, x=st.floats(0, 40, width=32), y=st.floats(0, 40, width=32), label=st.integers(0, 2)),
        min_size=1,
        max_size=3,
    ),
)
images = st.one_of(
    st.sampled_from(FILES).map(lambda data: pb.Image(encoded=data)),
    st.sampled_from(FILES).flatmap(mutated).map(lambda data: pb.Image(encoded=data)),
    st.builds(
        lambda width, height, rgb: pb.Image(raw=pb.RawImage(width=width, height=height, rgb=rgb)),
        st.integers(0, 2**32 - 1) | st.integers(0, 4),
        st.integers(0, 2**32 - 1) | st.integers(0, 4),
        st.binary(max_size=48),
    ),
    st.text(max_size=200).map(lambda text: pb.Image(handle=text)),
    st.just(pb.Image()),
)
segment_requests = st.builds(
    pb.SegmentRequest,
    image=images,
    prompts=st.lists(prompts | good_prompts | worded_prompts, max_size=5),
    selection=st.integers(-1, 5),
    format=st.integers(-1, 7),
    return_logits=st.booleans(),
    variant=st.sampled_from(["", "mobilesam", "nobody"]) | st.text(max_size=200),
)
share = st.floats(width=32) | st.floats(0, 1, width=32)
few = st.integers(0, 20) | st.integers(0, 2**32 - 1)
grids = st.builds(
    pb.GridParameters,
    points_per_side=st.integers(0, 3) | st.integers(0, 2**32 - 1),
    pred_iou_thresh=share,
    stability_score_thresh=share,
    stability_score_offset=share,
    box_nms_thresh=share,
    crop_n_layers=st.integers(0, 1) | st.integers(0, 2**32 - 1),
    crop_nms_thresh=share,
    crop_overlap_ratio=share,
    crop_n_points_downscale_factor=st.integers(0, 3) | st.integers(0, 2**32 - 1),
    min_mask_region_area=st.integers(0, 2**32 - 1),
    max_masks=st.integers(0, 2**32 - 1),
)
everything_requests = st.builds(
    pb.SegmentEverythingRequest,
    image=images,
    grid=st.none() | grids,
    format=st.integers(-1, 7),
    variant=st.just(""),
    strategy=st.integers(-1, 7),
    hierarchical=st.none()
    | st.builds(
        pb.HierarchicalParameters,
        high_score_thresh=share,
        coarse_factor=few,
        covering_stages=few,
        neighbours_per_point=few,
    ),
    object_aware=st.none() | st.builds(pb.ObjectAwareParameters, conf=share, iou=share, max_detections=few),
    aop=st.none()
    | st.builds(
        pb.AopParameters, smoothing_sigma=share, confidence_thresh=share, spacing=few, elimination_factor=share
    ),
    anytime=st.booleans(),
)
wire = st.one_of(
    st.tuples(st.just("Segment"), segment_requests.map(lambda request: request.SerializeToString())),
    st.tuples(st.just("SegmentEverything"), everything_requests.map(lambda request: request.SerializeToString())),
    st.tuples(st.just("Embed"), images.map(lambda image: pb.EmbedRequest(image=image).SerializeToString())),
)
broken_wire = wire.flatmap(lambda call: st.tuples(st.just(call[0]), mutated(call[1])))


@pytest.fixture(scope="module")
def server(installed: None) -> Iterator[Process]:
    with serving() as process:
        yield process
        assert "Traceback" not in process.end()


@pytest.fixture(scope="module")
def channel(server: Process) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as opened:
        yield opened


def status_of(channel: grpc.Channel, method: str, request: bytes) -> tuple[grpc.StatusCode, str]:
    path = f"/samgate.v1.Segmentation/{method}"
    try:
        if method == "SegmentEverything":
            list(channel.unary_stream(path, bytes, bytes)(request, timeout=EVERYTHING_TIMEOUT_S))
        else:
            channel.unary_unary(path, bytes, bytes)(request, timeout=60)
    except grpc.RpcError as error:
        return error.code(), str(error.details() or "")
    return grpc.StatusCode.OK, ""


def check(channel: grpc.Channel, call: tuple[str, bytes]) -> None:
    code, details = status_of(channel, *call)
    assert code in DELIBERATE, (call[0], details)
    assert code is grpc.StatusCode.OK or details


@fuzzed
@given(wire)
def test_wellformed_requests_of_any_content(channel: grpc.Channel, call: tuple[str, bytes]) -> None:
    check(channel, call)


@fuzzed
@given(broken_wire)
def test_requests_damaged_on_the_wire(channel: grpc.Channel, call: tuple[str, bytes]) -> None:
    check(channel, call)


def test_a_request_that_is_no_protobuf(channel: grpc.Channel) -> None:
    codes = {status_of(channel, "Segment", os.urandom(size))[0] for size in range(1, 200)}
    assert codes <= DELIBERATE


def test_memory_does_not_grow_with_the_number_of_requests(server: Process, channel: grpc.Channel) -> None:
    """The same requests again, which are all of a kind that the server has had before."""
    process = psutil.Process(server.running.pid)
    requests = [
        ("Segment", pb.SegmentRequest(image=image, prompts=[prompt]).SerializeToString())
        for image in (pb.Image(encoded=FILES[0]), pb.Image(encoded=FILES[3][:-40]), pb.Image(handle="gone"), pb.Image())
        for prompt in (pb.Prompt(points=[pb.Point(x=9, y=9)]), pb.Prompt(box=pb.Box(x0=9)), pb.Prompt())
    ]
    sizes = []
    for _ in range(3):
        for turn in range(REQUESTS):
            check(channel, requests[turn % len(requests)])
        sizes.append(process.memory_info().rss)
    assert sizes[2] < 1.05 * sizes[1]
