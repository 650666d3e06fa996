"""What surrounds SAM 2's network against what upstream's own predictor does (tests/parity/upstream/sam2_rules.py)."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from parity.recording import golden_path, read, shapes_in
from parity.upstream.sam2_rules import (
    FILE,
    KINDS,
    PROMPTS,
    SIZES,
    STABILITIES,
    image_of,
    logits_of,
    prompt_of,
    sampled,
)
from samgate.domain import Format, Prompt, Selection
from samgate.imaging.masks import finish, full_logits
from samgate.imaging.preprocess import encoder_input, frame_of
from samgate.serving.answers import AnswerSize, answer_prompt
from samgate.serving.prompting import box_group, group_prompts, point_group, select
from samgate.serving.requests import SegmentCall
from samgate.variants import get_variant
from samgate.variants.graphs import graph_specs
from samgate.variants.sam2 import SPECS, VIDEO_PARAMETERS
from samgate.weights.formats import network_shapes

SPEC = get_variant("sam2.1-t")
GOLDEN = read(FILE)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_encoders_input_is_upstreams_to_a_grey_level(kind: str, size: tuple[int, int]) -> None:
    square, frame = encoder_input(image_of(kind, size), SPEC)
    assert frame.resized == square.shape[:2] == (1024, 1024)
    apart = np.abs(sampled(square).astype(np.float32) - GOLDEN[f"input/{kind}/{size}"])
    # Upstream resizes fractions; Pillow rounds to whole levels twice, after columns and after rows.
    assert apart.max() <= 1.01
    assert apart.mean() <= 0.33
    if size == (1024, 1024):
        assert apart.max() < 1e-3


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", PROMPTS)
def test_tokens_are_upstreams_in_another_order(kind: str, size: tuple[int, int]) -> None:
    points, labels, box = prompt_of(kind, size)
    (group,) = group_prompts([Prompt(points, labels, box)], frame_of(*size, SPEC), SPEC, 1)
    tokens = np.concatenate((group.prompts.coords[0, 0], group.prompts.labels[0, 0, :, None]), 1)
    theirs = GOLDEN[f"tokens/{kind}/{size}"]
    # Corners first there, last here; attention doesn't mind, which test_nets_parity shows. f32 rounds x/w·1024 and
    # x·(1024/w) differently.
    np.testing.assert_allclose(by_label(tokens), by_label(theirs), rtol=1e-6, atol=1e-4)


def test_segeverys_prompts_fit_the_graph_of_scores() -> None:
    scores = graph_specs(SPEC)["scores"]
    (profile,) = scores.profiles
    frame = frame_of(300, 500, SPEC)
    for group in (
        point_group(np.ones((2, 2), np.float32), frame, SPEC),
        box_group(np.ones((2, 4), np.float32), frame, SPEC),
    ):
        sizes = dict(zip(scores.inputs[1].shape, group.coords.shape, strict=True))
        assert profile["K"].smallest <= sizes["K"] <= profile["K"].largest


def by_label(tokens: NDArray[Any]) -> NDArray[Any]:
    return tokens[np.argsort(tokens[:, 2], kind="stable")]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_masks_are_upstreams(size: tuple[int, int]) -> None:
    frame = frame_of(*size, SPEC)
    logits, ious = logits_of(str(size))
    full = np.stack([full_logits(one, frame) for one in logits[1:]])
    # Logits reach 80 here, and OpenCV's weights have other last bits than torch's.
    np.testing.assert_allclose(sampled(full), GOLDEN[f"logits/{size}"], atol=2e-3)
    areas = np.array([finish(one, frame, SPEC.mask_threshold).area for one in logits[1:]])
    # Pixels whose logits are 0 but for these bits.
    assert np.abs(areas - GOLDEN[f"areas/{size}"]).max() <= 1e-5 * math.prod(size)
    call = SegmentCall(None, (), Selection.MULTI, Format.RLE, True, None)  # type: ignore[arg-type]
    answered = answer_prompt(logits, ious, frame, call, SPEC, AnswerSize(1 << 30))
    assert [mask.area for mask in answered] == areas.tolist()
    handed_out = np.stack([mask.low_res for mask in answered if mask.low_res is not None])
    assert np.array_equal(sampled(handed_out), GOLDEN[f"low_res/{size}"])
    assert np.abs(handed_out).max() == SPEC.logit_limit < np.abs(logits).max()


def test_the_single_mask_is_upstreams() -> None:
    chosen = set()
    for spread in STABILITIES:
        logits, ious = logits_of("stability", spread)
        (token,) = select(logits, ious, Selection.SINGLE, SPEC)
        assert token == GOLDEN[f"single/{spread}"]
        chosen.add(token)
    assert len(chosen) == 2, "no case of one kind"
    assert select(-np.abs(logits) - 1, ious, Selection.SINGLE, SPEC) == tuple(GOLDEN["single/nothing"])


def test_what_is_counted_as_only_for_videos_is_the_rest_of_upstreams_network() -> None:
    video = json.loads(str(GOLDEN["video"]))
    assert sum(map(math.prod, video.values())) == VIDEO_PARAMETERS
    for spec in SPECS:
        whole = int(GOLDEN[f"parameters/{spec.name}"])
        # The positional encoding's frequencies are saved, but no parameter.
        own = sum(math.prod(shape) for name, shape in network_shapes(spec).items() if "gaussian" not in name)
        assert whole == own + VIDEO_PARAMETERS
        assert abs(spec.parameters - own) <= 0.01 * own, spec.name


def test_the_small_networks_have_all_names_of_the_whole_decoder() -> None:
    small = shapes_in(read(golden_path(SPEC, small=True)))
    whole = network_shapes(SPEC)
    decoder = [name for name in whole if name.startswith("sam_")]
    assert {name: small[name] for name in decoder} == {name: whole[name] for name in decoder}
