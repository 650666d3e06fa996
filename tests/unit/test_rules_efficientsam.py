"""What happens around EfficientSAM's networks, against upstream's own code (tests/parity/upstream/efficientsam.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from parity.recording import GOLDEN, difference, read, shapes_in
from parity.upstream.efficientsam import RULE_POINTS, RULE_SIZES, rule_image, rule_logits
from parity.weights import draw_state
from samgate.compile.export import graph_module, load_network
from samgate.domain import FloatArray, Prompt, Selection
from samgate.imaging.masks import finish, full_logits
from samgate.imaging.preprocess import encoder_input, frame_of
from samgate.serving.prompting import group_prompts, select
from samgate.variants import get_variant

GOLDEN_RULES = read(GOLDEN / "rules_efficientsam.npz")
SPEC = get_variant("efficientsam-ti")
SIZES = pytest.mark.parametrize("size", RULE_SIZES)


def sampled(name: str, values: FloatArray) -> FloatArray:
    return values.ravel()[:: int(GOLDEN_RULES[f"{name}/stride"])]


@SIZES
def test_the_encoders_input_is_upstreams_to_half_a_grey_level(size: tuple[int, int]) -> None:
    square, frame = encoder_input(rule_image(size), SPEC)
    theirs = GOLDEN_RULES[f"{size}/input"] * 255
    error = np.abs(sampled(f"{size}/input", square.astype(np.float32)) - theirs).max()
    # Upstream doesn't round. 1e-4 is its own, of values up to 255 in f32. Where nothing is resized, nothing is rounded.
    assert error <= (1e-4 if size == (1024, 1024) else 0.5 + 1e-4)
    assert frame.resized == (1024, 1024)


def test_what_that_does_to_the_embedding() -> None:
    spec = SPEC.reduced()
    shapes = shapes_in(read(GOLDEN / "efficientsam-ti-small.npz"))
    network = load_network(spec, draw_state(shapes))
    square, frame = encoder_input(rule_image(RULE_SIZES[1]), spec)
    with torch.inference_mode():
        encoder = graph_module(spec, network, "encoder")
        embedding = encoder(torch.tensor(square[None]), torch.tensor([frame.resized], dtype=torch.int32))
    # With drawn weights half a per cent, of photographs as of noise; of the whole network 0.3%.
    assert difference("embedding", embedding.numpy(), GOLDEN_RULES) == pytest.approx(0.005, abs=0.001)


@SIZES
def test_points_are_upstreams_and_filled_up_to_six(size: tuple[int, int]) -> None:
    height, width = size
    points = np.array(RULE_POINTS, np.float32) * np.array([width, height], np.float32)
    prompt = Prompt(points, np.ones(len(points), np.int32))
    (group,) = group_prompts([prompt], frame_of(height, width, SPEC), SPEC, 1)
    assert group.prompts.labels[0, 0].tolist() == GOLDEN_RULES[f"{size}/labels"].tolist() == [1, 1, 1, 1, -1, -1]
    # Upstream scales in f32, which is exact to 6e-5 at 1,024.
    assert np.abs(group.prompts.coords[0, 0] - GOLDEN_RULES[f"{size}/coords"]).max() <= 1e-4


@SIZES
def test_logits_at_the_images_size_are_upstreams(size: tuple[int, int]) -> None:
    frame = frame_of(*size, SPEC)
    ours = sampled(f"{size}/logits", full_logits(rule_logits(), frame))
    # Of logits up to 7: OpenCV's cubic weights are those of the same kernel, summed in another order.
    assert np.abs(ours - GOLDEN_RULES[f"{size}/logits"]).max() <= 2e-4
    # Upstream's mask has logits of exactly 0, and which side of it a pixel is on may be rounding.
    area = finish(rule_logits(), frame, SPEC.mask_threshold).area
    assert abs(area - int(GOLDEN_RULES[f"{size}/area"])) <= 3


def test_all_answers_are_among_the_masks_that_upstream_answers_with() -> None:
    masks, ious = np.zeros((4, 256, 256), np.float32), np.array([0.9, 0.1, 0.7, 0.3], np.float32)
    assert select(masks, ious, Selection.MULTI, SPEC) == (1, 2, 3)
    assert select(masks, ious, Selection.SINGLE, SPEC) == (2,)
    assert select(masks, ious, Selection.BEST, SPEC) == (2,)
