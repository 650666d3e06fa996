"""What is around FastSAM's network against upstream's own functions: images, duplicates, boxes, masks, and the choice
among these by boxes and points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fastsam_support import SPEC, Size, embedded
from parity import rules
from parity.recording import GOLDEN, Golden, read
from parity.upstream.fastsam import (
    PROMPT_SIZES,
    RULE_BOXES,
    RULE_POINTS,
    RULE_SIZES,
    rule_box,
    rule_points,
)
from samgate.domain import FloatArray, Frame, Prompt
from samgate.imaging.masks import finish
from samgate.imaging.preprocess import encoder_input
from samgate.serving.prompting import group_prompts
from samgate.variants.detections import detections_in
from samgate.variants.nets.fastsam import FastSamDecoderGraph

PIXELS = 1.0
"""Of the image, between sides of boxes: upstream's scale is the exact one, here both sides were rounded to pixels of
the input."""
AT_EDGES = 0.03
"""The share of pixels that differ: where a mask is cut to its box, upstream counts from whole pixels of the image, half
of one further right and down. Crafted masks have many edges."""
TINY = 0.15
"""The same of an image of 37 × 53 pixels, each of which is five wide in the masks."""
ALIKE = 0.005
"""Between what two masks are worth, of which either may be chosen: counted in low-res pixels, and in the image's."""
BoolMasks = NDArray[np.bool_]


@pytest.fixture(scope="module")
def golden() -> Golden:
    return read(GOLDEN / "rules_fastsam.npz")


def theirs(golden: Golden, name: str, size: Size, count: int) -> BoolMasks:
    shape = (count, *size)
    return np.unpackbits(golden[f"{size}/{name}"])[: np.prod(shape)].reshape(shape).astype(np.bool_)


def iou(one: BoolMasks, other: BoolMasks) -> float:
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def image_masks(low_res: FloatArray, frame: Frame) -> list[BoolMasks]:
    return [finish(one, frame, SPEC.mask_threshold).mask.astype(np.bool_) for one in low_res]


@pytest.mark.parametrize("size", RULE_SIZES)
def test_the_network_sees_upstreams_pixels(size: Size, golden: Golden) -> None:
    square, _ = encoder_input(rules.image_of(size), SPEC)
    assert np.array_equal(rules.sample(square), golden[f"{size}/input"])


@pytest.mark.parametrize("size", RULE_SIZES)
def test_detections_are_upstreams_in_order_and_place(size: Size, golden: Golden) -> None:
    embedding, frame = embedded(size)
    found, expected = detections_in(embedding), golden[f"{size}/boxes"]
    assert found.confidences == pytest.approx(expected[:, 4])
    boxes = frame.from_prompt(found.boxes.reshape(-1, 2, 2) * np.float32(SPEC.prompt_size / SPEC.low_res_size))
    assert np.abs(boxes.reshape(-1, 4) - expected[:, :4]).max() <= PIXELS


@pytest.mark.parametrize("size", PROMPT_SIZES)
def test_masks_are_upstreams(size: Size, golden: Golden) -> None:
    embedding, frame = embedded(size)
    expected = theirs(golden, "masks", size, len(golden[f"{size}/boxes"]))
    ours = np.stack(image_masks(detections_in(embedding).logits(slice(None)), frame))
    wrong = np.count_nonzero(ours ^ expected) / np.count_nonzero(ours | expected)
    assert wrong <= (TINY if size == (37, 53) else AT_EDGES)


def decoded(prompts: list[Prompt], size: Size) -> tuple[FloatArray, FloatArray]:
    """Masks ``[P, M, L, L]`` and what they are worth ``[P, M]``."""
    embedding, frame = embedded(size)
    (group,) = group_prompts(prompts, frame, SPEC, len(prompts))
    with torch.inference_mode():
        masks, ious = FastSamDecoderGraph(SPEC)(
            torch.tensor(embedding)[None], torch.tensor(group.prompts.coords), torch.tensor(group.prompts.labels)
        )
    return masks[0].numpy(), ious[0].numpy()


@pytest.mark.parametrize("size", [(427, 640), (97, 1001)])
def test_boxes_choose_the_masks_that_upstreams_do(size: Size, golden: Golden) -> None:
    logits = detections_in(embedded(size)[0]).logits(slice(None))
    nothing = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
    prompts = [Prompt(*nothing, box=np.array(rule_box(box, size), np.float32)) for box in RULE_BOXES]
    masks, worths = decoded(prompts, size)
    same = []
    for mask, worth, chosen in zip(masks, worths, golden[f"{size}/chosen"].tolist(), strict=True):
        assert np.array_equal(mask[0], mask[1])
        places = np.abs(logits - mask[1:, None]).max((2, 3)).argmin(1).tolist()
        same.append(places[0] == chosen)
        assert worth[1] - worth[1 + places.index(chosen)] <= ALIKE
    assert np.mean(same) >= 0.8


@pytest.mark.parametrize("size", PROMPT_SIZES)
def test_points_unite_the_masks_that_upstreams_do(size: Size, golden: Golden) -> None:
    expected = theirs(golden, "united", size, len(RULE_POINTS))
    _, frame = embedded(size)
    ious = []
    for points, them in zip(RULE_POINTS, expected, strict=True):
        at, labels = rule_points(points, size)
        masks, _ = decoded([Prompt(np.array(at, np.float32), np.array(labels, np.int32))], size)
        ious.append(iou(image_masks(masks[0, :1], frame)[0], them))
    assert np.mean(ious) >= (0.94 if size == (37, 53) else 0.98)
    # One or two points lie where a mask ends.
    assert np.median(ious) >= (0.97 if size == (37, 53) else 0.99)


def test_several_boxes_may_be_the_whole_image_where_upstream_fails(golden: Golden) -> None:
    assert str(golden["two wholes"]) == "RuntimeError"
    embedding, _ = embedded((512, 512), wholes=2)
    found = detections_in(embedding)
    whole = (found.boxes == [0, 0, SPEC.low_res_size, SPEC.low_res_size]).all(1)
    assert found.confidences[whole] == pytest.approx([0.9821, 0.4271])
