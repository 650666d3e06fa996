"""What is around CLIP against upstream's own functions: tokens, what it is shown of an object, and the choice."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from fastsam_support import SPEC, Size, embedded
from parity import rules
from parity.recording import GOLDEN, Golden, read
from parity.upstream.clip import (
    CROP_BOXES,
    CROP_SIZES,
    CROPPED,
    TEXTS,
    TOO_LONG,
    crop_box,
    features,
    kept,
)
from parity.upstream.fastsam import PROMPT_SIZES
from samgate.errors import InvalidArgument
from samgate.text.choice import SMALLEST, meant, objects_in, probabilities
from samgate.text.crops import crops_of
from samgate.text.tokens import tokens_of
from samgate.variants.clip import VIT_B_32
from samgate.variants.detections import detections_in

ROUNDED = 1
"""Of 255: Pillow has the place of a part of an image in single precision."""
BESIDE = 1
"""Pixels of masks or of the image, whichever are larger, between sides of masks: cut to boxes half of one apart."""
FEW = 0.2
"""The share of all objects that are further apart: crafted masks consist of waves, with islands of a pixel at their
ends."""


@cache
def golden() -> Golden:
    return read(GOLDEN / "rules_clip.npz")


def in_words(text: str) -> bool:
    """Whether all of ``text`` is meant as words: upstream takes marks of its own from a text, too."""
    return "<|" not in text and bool(text.strip())


@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_tokens_are_upstreams(index: int) -> None:
    text, theirs = TEXTS[index], golden()["tokens"][index]
    if not text.strip():
        with pytest.raises(InvalidArgument, match="text: has no words"):
            tokens_of([("text", text)], VIT_B_32.context)
        return
    (ours,) = tokens_of([("text", text)], VIT_B_32.context)
    if in_words(text):
        assert ours.tolist() == theirs.tolist()
    else:
        # Of marks of upstream's in a text: only ours end where the text ends.
        assert list(ours).count(theirs.max()) == 1
        assert list(theirs).count(theirs.max()) > 1
    assert ours.dtype == np.int32


def test_a_text_that_is_too_long_is_refused_as_upstream_does() -> None:
    assert "too long" in str(golden()["too long"])
    with pytest.raises(InvalidArgument, match=r"prompts\[3\]\.text: has 76 tokens \(parts of words\); the limit is 75"):
        tokens_of([("prompts[2].text", "a dog"), ("prompts[3].text", TOO_LONG)], VIT_B_32.context)


@pytest.mark.parametrize("size", CROP_SIZES)
def test_an_object_is_shown_as_upstream_does(size: Size) -> None:
    boxes = [crop_box(box, size) for box in CROP_BOXES]
    ours = np.stack([kept(crop) for crop in crops_of(rules.image_of(size), boxes, VIT_B_32.input_size)])
    theirs = golden()[f"{size}/crops"]
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= ROUNDED
    assert np.unique(theirs).size > 100


@pytest.mark.parametrize("size", PROMPT_SIZES)
def test_objects_are_where_upstreams_are(size: Size) -> None:
    embedding, frame = embedded(size)
    objects = objects_in(detections_in(embedding), frame, SPEC)
    areas, bounds = golden()[f"{size}/areas"], golden()[f"{size}/bounds"]
    # Of masks near the limit, a few low-res pixels, either rule may drop some.
    sure = np.flatnonzero((areas > 1.5 * SMALLEST) | (areas < SMALLEST / 1.5))
    assert set(objects.at) & set(sure) == set(np.flatnonzero(areas > SMALLEST)) & set(sure)
    assert list(objects.at) == sorted(objects.at)
    beside = np.abs(np.array(objects.boxes) - bounds[objects.at]).max(axis=1)
    assert (beside > BESIDE * max(1, max(size) / SPEC.low_res_size)).mean() <= FEW


@pytest.mark.parametrize("size", PROMPT_SIZES)
def test_masks_are_shown_as_upstream_does(size: Size) -> None:
    bounds, areas, theirs = (golden()[f"{size}/{name}"] for name in ("bounds", "areas", "cropped"))
    boxes = [(int(x0), int(y0), int(x1), int(y1)) for x0, y0, x1, y1 in bounds[areas > SMALLEST][:CROPPED]]
    crops = crops_of(rules.image_of(size), boxes, VIT_B_32.input_size)
    # Upstream's script reads an image in RGB, and then takes it for BGR.
    ours = np.stack([kept(crop[..., ::-1]) for crop in crops])
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= ROUNDED


@pytest.mark.parametrize("size", PROMPT_SIZES)
def test_the_best_one_is_chosen_where_upstream_counts_wrong(size: Size) -> None:
    """Upstream drops small masks, and then adds the number of those dropped before the best by its place among those
    that stay: the answer is another mask where more lie between."""
    remaining, chosen = np.flatnonzero(golden()[f"{size}/areas"] > SMALLEST), golden()[f"{size}/chosen"]
    found = detections_in(embedded(size)[0])
    wrong = 0
    for place, theirs in enumerate(chosen):
        likely = np.zeros(len(remaining), np.float32)
        likely[place] = 1
        masks, worth = meant(found, remaining, likely, 4)
        assert worth.tolist() == [1, 1, 0, 0]
        best = found.logits(remaining[place : place + 1])[0]
        assert np.allclose(masks[0], best, atol=1e-3)
        assert np.array_equal(masks[1], masks[0])
        wrong += int(theirs != remaining[place])
    assert 0 < wrong <= len(chosen)


def test_probabilities_are_upstreams() -> None:
    image, text = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in features())
    assert probabilities(image, text)[0] == pytest.approx(golden()["probabilities"], rel=1e-4)
    assert probabilities(image[:0], text).shape == (1, 0)
