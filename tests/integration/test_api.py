"""The API of a running gateway with real weights: what it answers, and what it says to what it can't answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1.segmentation_pb2_grpc import SegmentationStub
from samgate.domain import Polygon, Rle
from samgate.imaging.formats import packed_to_mask, png_to_mask, polygons_to_mask, rle_to_mask

SIZE = (240, 320)
ON_DISC = pb.Prompt(points=[pb.Point(x=100, y=120)])
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(scope="module")
def channel(gateway: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(gateway) as opened:
        yield opened


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> SegmentationStub:
    return SegmentationStub(channel)


@pytest.fixture(scope="module")
def handle(stub: SegmentationStub, photo: bytes) -> str:
    return stub.Embed(pb.EmbedRequest(image=pb.Image(encoded=photo)), timeout=60).handle


def disc_iou(mask: np.ndarray) -> float:
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    disc = (x - 100) ** 2 + (y - 120) ** 2 < 60**2
    found = mask.astype(bool)
    return float((disc & found).sum() / (disc | found).sum())


def test_a_point_on_the_disc_finds_the_disc(stub: SegmentationStub, photo: bytes) -> None:
    request = pb.SegmentRequest(image=pb.Image(encoded=photo), prompts=[ON_DISC], selection=pb.MASK_SELECTION_BEST)
    answer = stub.Segment(request, timeout=60)
    mask = answer.results[0].masks[0]
    found = rle_to_mask(Rle((mask.rle.height, mask.rle.width), mask.rle.counts))
    assert disc_iou(found) > 0.9
    assert mask.area == found.sum()
    box = mask.bounding_box
    assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx((41, 61, 160, 180), abs=4)
    assert mask.predicted_iou > 0.8
    assert mask.stability_score > 0.9
    assert (answer.width, answer.height, answer.info.variant) == (320, 240, "mobilesam")
    assert answer.info.timings.total_ms > 0


@pytest.mark.parametrize("name", ["RLE", "PNG", "POLYGONS", "PACKED_BITS"])
def test_every_format_holds_the_same_mask(stub: SegmentationStub, handle: str, name: str) -> None:
    request = pb.SegmentRequest(
        image=pb.Image(handle=handle), prompts=[ON_DISC], format=pb.MaskFormat.Value(f"MASK_FORMAT_{name}")
    )
    mask = stub.Segment(request, timeout=60).results[0].masks[0]
    decode: dict[str, Callable[[], np.ndarray]] = {
        "RLE": lambda: rle_to_mask(Rle((mask.rle.height, mask.rle.width), mask.rle.counts)),
        "PNG": lambda: png_to_mask(mask.png),
        "POLYGONS": lambda: polygons_to_mask(
            [Polygon(np.array(p.coordinates, np.float32).reshape(-1, 2), p.hole) for p in mask.polygons.polygons], SIZE
        ),
        "PACKED_BITS": lambda: packed_to_mask(mask.packed_bits, SIZE),
    }
    assert mask.WhichOneof("data") == name.lower()
    assert decode[name]().sum() == mask.area
    assert disc_iou(decode[name]()) > 0.9


def test_many_prompts_of_every_kind_in_one_call_keep_their_order(stub: SegmentationStub, handle: str) -> None:
    image = pb.Image(handle=handle)
    first = stub.Segment(
        pb.SegmentRequest(image=image, prompts=[ON_DISC], format=pb.MASK_FORMAT_LOW_RES_LOGITS), timeout=60
    )
    logits = first.results[0].masks[0].low_res_logits
    assert len(logits) == 256 * 256 * 4
    square = pb.Box(x0=198, y0=58, x1=292, y1=162)
    prompts = [
        pb.Prompt(box=square),
        ON_DISC,
        pb.Prompt(points=[pb.Point(x=100, y=120), pb.Point(x=240, y=110, label=pb.POINT_LABEL_BACKGROUND)]),
        pb.Prompt(box=square, points=[pb.Point(x=240, y=110)]),
        pb.Prompt(points=ON_DISC.points, mask_logits=logits),
        pb.Prompt(mask_logits=logits),
    ]
    together = stub.Segment(pb.SegmentRequest(image=image, prompts=prompts), timeout=60)
    assert [len(result.masks) for result in together.results] == [1] * 6
    for prompt, result in zip(prompts, together.results, strict=True):
        alone = stub.Segment(pb.SegmentRequest(image=image, prompts=[prompt]), timeout=60).results[0].masks[0]
        assert result.masks[0].area == pytest.approx(alone.area, rel=0.01)
    on_square, on_disc = together.results[0].masks[0], together.results[4].masks[0]
    assert on_square.bounding_box.x0 == pytest.approx(200, abs=4)
    assert on_disc.bounding_box.x0 == pytest.approx(41, abs=4)


def test_multi_returns_three_masks_and_best_the_best_of_them(stub: SegmentationStub, handle: str) -> None:
    def masks(selection: pb.MaskSelection.ValueType) -> list[pb.Mask]:
        request = pb.SegmentRequest(image=pb.Image(handle=handle), prompts=[ON_DISC], selection=selection)
        return list(stub.Segment(request, timeout=60).results[0].masks)

    three, (best,) = masks(pb.MASK_SELECTION_MULTI), masks(pb.MASK_SELECTION_BEST)
    assert len(three) == 3
    assert best.predicted_iou == pytest.approx(max(mask.predicted_iou for mask in three), rel=1e-4)


def test_an_image_is_encoded_once_for_all_who_send_it_at_the_same_time(stub: SegmentationStub) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    raw = pb.Image(raw=pb.RawImage(width=64, height=64, rgb=pixels.tobytes()))
    request = pb.SegmentRequest(image=raw, prompts=[pb.Prompt(points=[pb.Point(x=5, y=5)])])
    calls = [stub.Segment.future(request, timeout=60) for _ in range(6)]
    answers = [call.result() for call in calls]
    assert sorted(answer.info.embedding_cached for answer in answers) == [False] + [True] * 5
    assert len({answer.info.handle for answer in answers}) == 1


def test_exif_orientation_is_honoured(stub: SegmentationStub, photo: bytes) -> None:
    from io import BytesIO

    from PIL import Image

    sideways = Image.open(BytesIO(photo)).convert("RGB").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    data = BytesIO()
    sideways.save(data, "JPEG", quality=95, exif=exif)
    request = pb.SegmentRequest(
        image=pb.Image(encoded=data.getvalue()), prompts=[ON_DISC], selection=pb.MASK_SELECTION_BEST
    )
    answer = stub.Segment(request, timeout=60)
    mask = answer.results[0].masks[0]
    assert (answer.width, answer.height) == (320, 240)
    assert disc_iou(rle_to_mask(Rle((mask.rle.height, mask.rle.width), mask.rle.counts))) > 0.9


def jpeg(width: int = 64, height: int = 48) -> bytes:
    ok, data = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))
    assert ok
    return data.tobytes()


def raw(width: int, height: int, length: int) -> pb.Image:
    return pb.Image(raw=pb.RawImage(width=width, height=height, rgb=bytes(length)))


GOOD = pb.Image(encoded=jpeg())
POINT = pb.Prompt(points=[pb.Point(x=3, y=3)])


def boxed(*corners: float) -> pb.Prompt:
    return pb.Prompt(box=pb.Box(x0=corners[0], y0=corners[1], x1=corners[2], y1=corners[3]))


def pointed(x: float, y: float, label: int = 1) -> pb.Prompt:
    return pb.Prompt(points=[pb.Point(x=x, y=y, label=label)])  # type: ignore[arg-type]


def huge_png() -> bytes:
    """A PNG whose header says 60,000 × 60,000; there is nothing behind it."""
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


BAD: dict[str, tuple[pb.SegmentRequest, str]] = {
    "no image": (pb.SegmentRequest(prompts=[POINT]), "image: is empty"),
    "empty file": (pb.SegmentRequest(image=pb.Image(encoded=b""), prompts=[POINT]), "image.encoded: is empty"),
    "not an image": (pb.SegmentRequest(image=pb.Image(encoded=b"hello" * 9), prompts=[POINT]), "image.encoded: "),
    "truncated JPEG": (pb.SegmentRequest(image=pb.Image(encoded=jpeg()[:-400]), prompts=[POINT]), "truncated"),
    "too many pixels": (pb.SegmentRequest(image=pb.Image(encoded=huge_png()), prompts=[POINT]), "3600000000 pixels"),
    "zero size": (pb.SegmentRequest(image=raw(0, 5, 0), prompts=[POINT]), "image.raw: is 0×5"),
    "raw too short": (pb.SegmentRequest(image=raw(9, 9, 9), prompts=[POINT]), "image.raw.rgb: has 9 bytes"),
    "no prompts": (pb.SegmentRequest(image=GOOD), "prompts: is empty"),
    "too many prompts": (pb.SegmentRequest(image=GOOD, prompts=[POINT] * 257), "prompts: has 257; the limit is 256"),
    "empty prompt": (pb.SegmentRequest(image=GOOD, prompts=[POINT, pb.Prompt()]), "prompts[1]: is empty"),
    "words beside a point": (
        pb.SegmentRequest(image=GOOD, prompts=[pb.Prompt(points=POINT.points, text="a dog")]),
        "prompts[0].text: stands alone: points can't be in the same prompt",
    ),
    "NaN": (pb.SegmentRequest(image=GOOD, prompts=[pointed(NAN, 1)]), "prompts[0].points[0].x: is nan"),
    "infinity": (pb.SegmentRequest(image=GOOD, prompts=[boxed(0, 0, INFINITY, 3)]), "prompts[0].box.x1: is inf"),
    "point outside": (pb.SegmentRequest(image=GOOD, prompts=[pointed(65, 1)]), "outside of the 64×48 image"),
    "box outside": (pb.SegmentRequest(image=GOOD, prompts=[boxed(1, 1, 9, 49)]), "not inside of the 64×48 image"),
    "inverted box": (pb.SegmentRequest(image=GOOD, prompts=[boxed(9, 1, 3, 9)]), "prompts[0].box: (9, 1, 3, 9)"),
    "unknown label": (pb.SegmentRequest(image=GOOD, prompts=[pointed(1, 1, 7)]), "points[0].label: 7 is unknown"),
    "too many points": (
        pb.SegmentRequest(image=GOOD, prompts=[pb.Prompt(points=list(POINT.points) * 129)]),
        "prompts[0].points: has 129; the limit is 128",
    ),
    "mask of wrong size": (
        pb.SegmentRequest(image=GOOD, prompts=[pb.Prompt(mask_logits=b"1234")]),
        "prompts[0].mask_logits: has 4 bytes",
    ),
    "mask of NaN": (
        pb.SegmentRequest(image=GOOD, prompts=[pb.Prompt(mask_logits=np.full(65536, NAN, "<f4").tobytes())]),
        "prompts[0].mask_logits: has values that are not finite",
    ),
    "unknown format": (pb.SegmentRequest(image=GOOD, prompts=[POINT], format=9), "format: 9 is unknown"),  # type: ignore[arg-type]
    "unknown selection": (pb.SegmentRequest(image=GOOD, prompts=[POINT], selection=-1), "selection: -1"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_told_what_is_wrong(stub: SegmentationStub, name: str) -> None:
    request, told = BAD[name]
    with pytest.raises(grpc.RpcError) as refused:
        stub.Segment(request, timeout=60)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert told in str(refused.value.details())


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        (pb.GridParameters(points_per_side=0), "grid.points_per_side"),
        (pb.GridParameters(points_per_side=10_000), "grid.points_per_side"),
        (pb.GridParameters(pred_iou_thresh=NAN), "grid.pred_iou_thresh"),
        (pb.GridParameters(box_nms_thresh=1.5), "grid.box_nms_thresh"),
        (pb.GridParameters(crop_n_layers=40), "grid.crop_n_layers"),
        (pb.GridParameters(crop_n_layers=3, points_per_side=100), "grid: asks for 850000 point prompts"),
        (pb.GridParameters(crop_overlap_ratio=2), "grid.crop_overlap_ratio"),
    ],
)
def test_bad_grid_parameters_are_named(stub: SegmentationStub, parameters: pb.GridParameters, told: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.SegmentEverything(pb.SegmentEverythingRequest(image=GOOD, grid=parameters), timeout=60))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert told in str(refused.value.details())


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (pb.SegmentRequest(image=GOOD, prompts=[POINT], variant="sam9000"), "sam9000"),
        (pb.SegmentRequest(image=pb.Image(handle="mobilesam.bf16.gone"), prompts=[POINT]), "send the image"),
    ],
)
def test_what_does_not_exist_is_not_found(stub: SegmentationStub, request_: pb.SegmentRequest, told: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.Segment(request_, timeout=60)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert told in str(refused.value.details())


def test_bytes_that_are_no_message_are_the_clients_fault(channel: grpc.Channel) -> None:
    for method in ("Segment", "Embed"):
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(f"/samgate.v1.Segmentation/{method}", bytes, bytes)(b"\xff\xff\xff\xff", timeout=10)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as refused:
        list(channel.unary_stream("/samgate.v1.Segmentation/SegmentEverything", bytes, bytes)(b"\x0a\xff", timeout=10))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_above_the_limit_is_refused(stub: SegmentationStub) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.Embed(pb.EmbedRequest(image=pb.Image(encoded=bytes(65 * 2**20))), timeout=60)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_expired_call_is_not_started(stub: SegmentationStub, photo: bytes) -> None:
    request = pb.SegmentRequest(image=pb.Image(encoded=photo + b"\0"), prompts=[ON_DISC])
    with pytest.raises(grpc.RpcError) as refused:
        stub.Segment(request, timeout=0.002)
    # Refused by the server, unless gRPC gives up before the answer is here.
    assert refused.value.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_a_deadline_that_cannot_be_met_is_told_the_smallest_that_can(stub: SegmentationStub, photo: bytes) -> None:
    request = pb.SegmentRequest(image=pb.Image(encoded=photo + b"\1"), prompts=[ON_DISC] * 200)
    with pytest.raises(grpc.RpcError) as refused:
        stub.Segment(request, timeout=0.2)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    trailers = {entry.key: entry.value for entry in refused.value.trailing_metadata()}
    assert int(trailers["smallest-deadline-ms"]) > 200
    assert "s is too short even for an idle server; the smallest that would do is" in str(refused.value.details())


def test_accuracy_that_nothing_has_is_refused_with_the_best_there_is(stub: SegmentationStub, photo: bytes) -> None:
    request = pb.SegmentRequest(image=pb.Image(encoded=photo), prompts=[ON_DISC], min_accuracy=0.99)
    with pytest.raises(grpc.RpcError) as refused:
        stub.Segment(request, timeout=60)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "min_accuracy: 0.99" in str(refused.value.details())
    request.min_accuracy = 1.5
    with pytest.raises(grpc.RpcError) as wrong:
        stub.Segment(request, timeout=60)
    assert wrong.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_answer_says_what_was_chosen_and_why(stub: SegmentationStub, photo: bytes) -> None:
    request = pb.SegmentRequest(image=pb.Image(encoded=photo), prompts=[ON_DISC])
    chosen = stub.Segment(request, timeout=60).info.decision
    assert chosen.reason == pb.REASON_MOST_ACCURATE
    assert 0.4 < chosen.accuracy < 0.6  # of points
    assert chosen.predicted_ms > 0
    assert chosen.deadline_ms == pytest.approx(60_000, rel=0.1)
    request.variant = "mobilesam"
    request.priority = pb.PRIORITY_BULK
    assert stub.Segment(request, timeout=60).info.decision.reason == pb.REASON_NAMED


def everything(photo: bytes, **grid: float) -> pb.SegmentEverythingRequest:
    return pb.SegmentEverythingRequest(image=pb.Image(encoded=photo), grid=pb.GridParameters(**grid))  # type: ignore[arg-type]


def test_everything_streams_progress_then_masks_then_a_summary(stub: SegmentationStub, photo: bytes) -> None:
    events: list[pb.SegmentEverythingResponse] = []
    told_at: list[float] = []
    for event in stub.SegmentEverything(everything(photo, points_per_side=8), timeout=120):
        events.append(event)
        if event.HasField("progress"):
            told_at.append(time.monotonic())
    # Ten times a second and at the end; of the chunks, up to 64, there may be hundreds a second.
    assert len(told_at) <= 10 * (told_at[-1] - told_at[0]) + 4
    kinds = [str(event.WhichOneof("event")) for event in events]
    assert kinds == sorted(kinds, key=["progress", "masks", "summary"].index)
    assert kinds.count("summary") == 1
    done = [event.progress.prompts_done for event in events if event.HasField("progress")]
    assert done == sorted(done)
    assert done[-1] == 64
    masks = [mask for event in events for mask in event.masks.masks]
    assert len(masks) == events[-1].summary.mask_count
    scores = [found.mask.predicted_iou for found in masks]
    assert scores == sorted(scores, reverse=True)
    best = max(disc_iou(rle_to_mask(Rle((m.mask.rle.height, m.mask.rle.width), m.mask.rle.counts))) for m in masks)
    assert best > 0.9


def test_everything_with_crops_finds_masks_in_them(stub: SegmentationStub, photo: bytes) -> None:
    request = everything(photo, points_per_side=6, crop_n_layers=1, min_mask_region_area=20)
    events = list(stub.SegmentEverything(request, timeout=120))
    assert events[-1].summary.info.timings.encode_ms > 0
    assert max(event.progress.prompts_total for event in events) == 5 * 36
    assert events[-1].summary.mask_count > 0


def test_a_click_does_not_wait_for_everything(stub: SegmentationStub, photo: bytes, handle: str) -> None:
    stream = stub.SegmentEverything(everything(photo, points_per_side=32), timeout=900)
    next(iter(stream))
    ended = threading.Event()

    def follow() -> None:
        with suppress(grpc.RpcError):
            for _ in stream:
                pass
        ended.set()

    follower = threading.Thread(target=follow)
    follower.start()
    for _ in range(3):
        stub.Segment(pb.SegmentRequest(image=pb.Image(handle=handle), prompts=[ON_DISC]), timeout=60)
    assert not ended.is_set()
    stream.cancel()
    follower.join(timeout=30)
    assert ended.is_set()


def test_variants_and_health(stub: SegmentationStub, channel: grpc.Channel) -> None:
    known = {one.name: one for one in stub.ListVariants(pb.ListVariantsRequest(), timeout=10).variants}
    variant = known.pop("mobilesam")
    others = list(known.values())
    assert (variant.served, variant.is_default) == (True, True)
    assert {"mobilesam-768", "sam-vit-h", "edgesam"} <= known.keys()
    (point,) = variant.operating_points
    assert point.name == f"mobilesam:{variant.precision}"
    assert point.box_miou > point.point_miou > 0
    assert point.encode_ms > point.decode_ms > 0
    assert not any(other.served or other.operating_points for other in others)
    assert all(other.install_command for other in others)
    assert variant.published_box_miou == pytest.approx(0.734)
    health: Any = health_pb2_grpc.HealthStub(channel)
    for service in ("", "samgate.v1.Segmentation"):
        status = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status
        assert status == health_pb2.HealthCheckResponse.SERVING
