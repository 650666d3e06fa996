"""Arguments → requests, answers → results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import samgate.client
from samgate.api.v1 import segmentation_pb2 as pb
from samgate.client import EmbeddedImage, Format, Handle, Selection, prompt, readers, requests
from samgate.client.generator import run_lengths
from samgate.client.images import RAW_MAX_BYTES, image_message
from samgate.client.prompts import one_or_many
from samgate.client.results import (
    AnswerInfo,
    Decision,
    EverythingMask,
    EverythingSummary,
    Progress,
    Retraction,
    Timings,
)
from samgate.domain import BoolArray, Rle
from samgate.errors import InvalidArgument, SamgateError
from samgate.imaging import formats

INFO = AnswerInfo("v", "f32", "e", False, Handle("h"), Timings(1, 2, 3, 4, 5, 15), Decision("named", 0.5, 1, 2, 0))


ANY = requests.Choice()


def disc(height: int = 37, width: int = 53) -> BoolArray:
    y, x = np.mgrid[:height, :width]
    return np.asarray((y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 3) ** 2)


def mask_message(mask: BoolArray, form: Format) -> pb.Mask:
    message = pb.Mask(area=int(mask.sum()), predicted_iou=0.5, stability_score=0.25)
    if form is Format.LOW_RES_LOGITS:
        return message
    match formats.encode(mask.astype(np.uint8), form):
        case Rle(size=(height, width), counts=counts):
            message.rle.CopyFrom(pb.Rle(width=width, height=height, counts=counts))
        case bytes() as data if form is Format.PNG:
            message.png = data
        case bytes() as data:
            message.packed_bits = data
        case tuple() as polygons:
            outlines = [pb.Polygon(coordinates=one.points.ravel().tolist(), hole=one.hole) for one in polygons]
            message.polygons.CopyFrom(pb.Polygons(polygons=outlines))
    return message


def test_the_public_names_are_these_and_exist() -> None:
    names = """AnswerInfo AsyncClient Client Decision EmbeddedImage Everything EverythingEvent EverythingMask
    EverythingOptions EverythingSummary Format GridOptions Handle ImageLike Mask OperatingPointInfo Priority Progress
    Prompt Retraction SamAutomaticMaskGenerator SamPredictor Segmentation Selection Strategy Timings VariantInfo
    prompt"""
    assert samgate.client.__all__ == names.split()
    assert all(hasattr(samgate.client, name) for name in names.split())


def test_the_client_imports_no_engine_and_no_codec() -> None:
    heavy = "{'torch', 'openvino', 'onnxruntime', 'cv2', 'pycocotools', 'PIL'}"
    code = f"import sys, samgate.client; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_prompts_take_plain_lists() -> None:
    one = prompt(points=(3, 4), box=[1, 2, 3, 4], mask_logits=np.zeros((1, 256, 256)))
    assert one.points.tolist() == [[3, 4]]
    assert one.labels.tolist() == [1]
    assert one.box is not None
    assert one.box.dtype == np.float32
    assert one.mask_logits is not None
    assert one.mask_logits.shape == (256, 256)


def test_words_are_a_prompt_of_their_own() -> None:
    one = prompt(text="a black dog")
    assert (one.text, one.points.shape, one.labels.shape) == ("a black dog", (0, 2), (0,))
    assert (one.box, one.mask_logits) == (None, None)
    sent = requests.segment_request(b"x", [one, prompt(points=[0, 0])], "multi", "rle", False, ANY).prompts
    assert sent[0] == pb.Prompt(text="a black dog")
    assert sent[1].text == ""


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "prompt"),
        ({"text": ""}, "text"),
        ({"text": " \t"}, "text"),
        ({"text": "a dog", "points": [[1, 2]]}, "text"),
        ({"text": "a dog", "labels": [1]}, "text"),
        ({"text": "a dog", "box": [1, 2, 3, 4]}, "text"),
        ({"text": "a dog", "mask_logits": np.zeros((256, 256))}, "text"),
        ({"points": [[1, 2, 3]]}, "points"),
        ({"points": "here"}, "points"),
        ({"points": [[1, 2]], "labels": [1, 0]}, "labels"),
        ({"points": [[1, 2]], "labels": [2]}, "labels"),
        ({"box": [1, 2, 3]}, "box"),
        ({"mask_logits": np.zeros((64, 64))}, "mask_logits"),
    ],
)
def test_unusable_prompts_are_told_by_their_argument(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        prompt(**arguments)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_several_prompts_and_a_single_one_exclude_each_other() -> None:
    several = [prompt(points=[1, 1]), prompt(points=[2, 2])]
    assert one_or_many(several, None, None, None, None) == several
    with pytest.raises(InvalidArgument, match="can't be combined"):
        one_or_many(several, [1, 1], None, None, None)
    with pytest.raises(InvalidArgument, match="can't be combined"):
        one_or_many(several, None, None, None, None, "a dog")
    (words,) = one_or_many(None, None, None, None, None, "a dog")
    assert words.text == "a dog"
    with pytest.raises(InvalidArgument, match="empty"):
        one_or_many([], None, None, None, None)


def test_images_of_every_kind(tmp_path: Path) -> None:
    file = tmp_path / "image.jpg"
    file.write_bytes(b"jpeg")
    for path in (file, str(file)):
        assert image_message(path) == pb.Image(encoded=b"jpeg")
    assert image_message(b"png") == pb.Image(encoded=b"png")
    assert image_message(Handle("h")) == image_message(EmbeddedImage(Handle("h"), (1, 1), 60, INFO))
    rgb = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    assert image_message(rgb[:, ::-1]).raw == pb.RawImage(width=4, height=2, rgb=rgb[:, ::-1].tobytes())
    assert image_message(rgb[..., 0]).raw.rgb == np.repeat(rgb[..., 0].ravel(), 3).tobytes()


def test_pixels_too_many_for_a_message_are_sent_as_png() -> None:
    rgb = np.zeros((4096, RAW_MAX_BYTES // 3 // 4096 + 1, 3), np.uint8)
    rgb[5, 6] = (1, 2, 3)
    encoded = image_message(rgb).encoded
    assert encoded.startswith(b"\x89PNG")
    assert len(encoded) < 2**20


@pytest.mark.parametrize(
    "image",
    [
        "no/such/file.jpg",
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        7,
    ],
)
def test_unusable_images_are_refused(image: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^image: "):
        image_message(image)  # type: ignore[arg-type]


def test_a_request_holds_what_was_asked() -> None:
    logits = np.arange(65536, dtype=np.float32).reshape(256, 256)
    one = prompt(points=[[1, 2], [3, 4]], labels=[1, 0], box=[0, 1, 2, 3], mask_logits=logits)
    choice = requests.Choice("v", 0.5, "bulk")
    request = requests.segment_request(b"x", [one], "best", Format.PACKED_BITS, True, choice)
    assert (request.variant, request.min_accuracy, request.priority) == ("v", 0.5, pb.PRIORITY_BULK)
    assert request.selection == pb.MASK_SELECTION_BEST
    assert request.format == pb.MASK_FORMAT_PACKED_BITS
    assert request.return_logits
    sent = request.prompts[0]
    assert [point.label for point in sent.points] == [pb.POINT_LABEL_FOREGROUND, pb.POINT_LABEL_BACKGROUND]
    assert sent.box == pb.Box(x0=0, y0=1, x1=2, y1=3)
    assert np.array_equal(np.frombuffer(sent.mask_logits, "<f4"), logits.ravel())
    assert (
        not requests.segment_request(b"x", [prompt(points=[0, 0])], "multi", "rle", False, ANY)
        .prompts[0]
        .HasField("box")
    )


def test_unknown_words_are_answered_with_the_known() -> None:
    with pytest.raises(InvalidArgument, match=r"selection: must be one of single, multi, best, is 'all'"):
        requests.segment_request(b"x", [], "all", "rle", False, ANY)
    with pytest.raises(InvalidArgument, match=r"format: must be one of rle, .*, is 'bmp'"):
        requests.segment_request(b"x", [], Selection.BEST, "bmp", False, ANY)


def test_an_unknown_priority_is_answered_with_the_known() -> None:
    with pytest.raises(InvalidArgument, match=r"priority: must be one of interactive, bulk, is 'now'"):
        requests.embed_request(b"x", requests.Choice(priority="now"))


def test_grid_parameters_left_out_stay_unset() -> None:
    request = requests.everything_request(b"x", {"points_per_side": 8, "pred_iou_thresh": 0.0}, "rle", ANY)
    assert [field.name for field, _ in request.grid.ListFields()] == ["points_per_side", "pred_iou_thresh"]
    for wrong in ({"points_per_side": -1}, {"points": 3}, {"points_per_side": "many"}):
        with pytest.raises(InvalidArgument, match=r"^grid: "):
            requests.everything_request(b"x", wrong, "rle", ANY)  # type: ignore[arg-type]


def test_parameters_go_to_their_strategys_message() -> None:
    options: requests.EverythingOptions = {"points_per_side": 8, "coarse_factor": 2, "iou": 0.5, "spacing": 3}
    request = requests.everything_request(b"x", options, "rle", ANY, "auto", True)
    assert (request.strategy, request.anytime) == (pb.STRATEGY_AUTO, True)
    assert request.grid == pb.GridParameters(points_per_side=8)
    assert request.hierarchical == pb.HierarchicalParameters(coarse_factor=2)
    assert request.object_aware == pb.ObjectAwareParameters(iou=0.5)
    assert request.aop == pb.AopParameters(spacing=3)
    plain = requests.everything_request(b"x", {}, "rle", ANY)
    assert (plain.strategy, plain.anytime, plain.HasField("object_aware")) == (pb.STRATEGY_GRID, False, False)
    with pytest.raises(InvalidArgument, match=r"^hierarchical: .*coarse_factor"):
        requests.everything_request(b"x", {"coarse_factor": -1}, "rle", ANY)
    with pytest.raises(InvalidArgument, match=r"strategy: must be one of grid, .*, auto, is 'all'"):
        requests.everything_request(b"x", {}, "rle", ANY, "all")


@pytest.mark.parametrize("form", [form for form in Format if form is not Format.LOW_RES_LOGITS])
def test_masks_of_every_format_are_decoded(form: Format) -> None:
    mask = disc()
    message = mask_message(mask, form)
    message.bounding_box.CopyFrom(pb.Box(x0=1, y0=2, x1=3, y1=4))
    answer = pb.SegmentResponse(results=[pb.PromptMasks(masks=[message])], width=53, height=37)
    (read,) = readers.read_segmentation(answer, form).masks
    assert read.to_numpy().dtype == np.bool_
    assert np.array_equal(read.to_numpy(), mask)
    assert (read.box, read.area) == ((1, 2, 3, 4), mask.sum())
    assert (read.rle is not None) == (form is Format.RLE)
    assert read.low_res_logits is None


def test_logits_alone_hold_no_mask() -> None:
    logits = np.linspace(-5, 5, 65536, dtype=np.float32).reshape(256, 256)
    message = pb.Mask(low_res_logits=logits.astype("<f4").tobytes())
    answer = pb.SegmentResponse(results=[pb.PromptMasks(masks=[message])] * 2, width=53, height=37)
    read = readers.read_segmentation(answer, Format.LOW_RES_LOGITS)
    mask = read.results[1][0]
    assert np.array_equal(mask.low_res_logits, logits)  # type: ignore[arg-type]
    assert mask.box is None
    with pytest.raises(SamgateError, match="holds no mask"):
        mask.to_numpy()
    with pytest.raises(SamgateError, match="this one had 2"):
        _ = read.masks
    message.low_res_logits = b"short"
    with pytest.raises(SamgateError, match="5 bytes"):
        readers.read_segmentation(pb.SegmentResponse(results=[pb.PromptMasks(masks=[message])]), Format.LOW_RES_LOGITS)


def test_everything_is_read_to_its_summary() -> None:
    progress: list[Progress] = []
    shown: list[tuple[int, ...]] = []
    mask = disc()
    collector = readers.EverythingCollector(progress.append, lambda masks: shown.append(tuple(m.id for m in masks)))
    found = pb.EverythingMask(
        mask=mask_message(mask, Format.PACKED_BITS),
        point=pb.Point(x=1.5, y=2.5),
        crop_box=pb.Box(x0=0, y0=0, x1=53, y1=37),
    )

    def one(number: int, iou: float) -> pb.EverythingMask:
        found.id, found.mask.predicted_iou = number, iou
        return pb.EverythingMask.FromString(found.SerializeToString())

    def changed(masks: list[pb.EverythingMask], retracted: Sequence[int] = ()) -> pb.EverythingMasks:
        return pb.EverythingMasks(masks=masks, retracted=retracted, width=53, height=37)

    answers = [
        pb.SegmentEverythingResponse(progress=pb.Progress(prompts_done=1, prompts_total=4, candidates=2)),
        pb.SegmentEverythingResponse(masks=changed([one(0, 0.8), one(1, 0.9)])),
        pb.SegmentEverythingResponse(masks=changed([one(2, 0.9)], retracted=[0])),
        pb.SegmentEverythingResponse(
            summary=pb.EverythingSummary(
                mask_count=2, width=53, height=37, complete=True, strategy=pb.STRATEGY_AUTO, prompts_done=7
            )
        ),
    ]
    with pytest.raises(SamgateError, match="without a summary"):
        collector.everything()
    told = [readers.read_everything(answer, Format.PACKED_BITS) for answer in answers]
    kinds = [type(event) for events in told for event in events]
    assert kinds == [Progress, EverythingMask, EverythingMask, Retraction, EverythingMask, EverythingSummary]
    for events in told:
        collector.add_message(events)
    assert progress == [Progress(1, 4, 2)]
    assert shown == [(1, 0), (1, 2)]
    everything = collector.everything()
    assert [one.id for one in everything.masks] == [1, 2]
    assert (everything.complete, everything.strategy, everything.prompts_done) == (True, "auto", 7)
    assert everything.size == (37, 53)
    first = everything.masks[0]
    assert (first.point, first.crop_box) == ((1.5, 2.5), (0, 0, 53, 37))
    assert np.array_equal(first.mask.to_numpy(), mask)


def test_run_lengths_are_those_of_the_columns() -> None:
    generator = np.random.default_rng(5)
    for mask in (disc(), generator.random((61, 47)) > 0.5, np.ones((300, 500), bool), np.zeros((4, 5), bool)):
        encoded = formats.encode(mask.astype(np.uint8), Format.RLE)
        assert isinstance(encoded, Rle)
        lengths = run_lengths(encoded)
        values = np.arange(len(lengths)) % 2 == 1
        assert np.array_equal(np.repeat(values, lengths).reshape(mask.shape[::-1]).T, mask)
