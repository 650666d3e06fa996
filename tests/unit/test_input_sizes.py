"""The same weights at smaller inputs: names and shapes, the resampled embedding, and one geometry for all sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from parity.recording import golden_path, read, shapes_in
from parity.weights import draw_state
from samgate.compile.export import load_network
from samgate.domain import BoolArray, FloatArray, Frame
from samgate.imaging.masks import finish
from samgate.imaging.preprocess import encoder_input, frame_of
from samgate.variants import VARIANTS
from samgate.variants.nets.resampling import Resample, cubic_weights
from samgate.variants.nets.sam import EncoderGraph
from samgate.variants.spec import VariantSpec
from samgate.weights.store import weights_path

LARGE = VARIANTS["mobilesam"]
SMALLER = (VARIANTS["mobilesam-768"], VARIANTS["mobilesam-512"])
ALL = (LARGE, *SMALLER)
SIZES = ((480, 640), (427, 640), (1200, 1800), (333, 500), (1365, 2048), (97, 1001), (640, 640))


def named(spec: VariantSpec) -> str:
    return spec.name


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    return shapes_in(read(golden_path(LARGE, small=False)))


@pytest.mark.parametrize("spec", SMALLER, ids=named)
@torch.inference_mode()
def test_the_state_dict_is_the_same_and_the_embedding_has_the_decoders_size(
    spec: VariantSpec, shapes: dict[str, tuple[int, ...]]
) -> None:
    network = load_network(spec, draw_state(shapes))
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == shapes
    graph = EncoderGraph(network, spec.input_size, spec.pixel_mean, spec.pixel_std)
    image = torch.zeros(1, spec.input_size, spec.input_size, 3, dtype=torch.uint8)
    embedding = graph(image, torch.tensor([[spec.input_size, spec.input_size // 2]], dtype=torch.int32))
    assert embedding.shape == (1, *LARGE.embedding_shape)
    assert network.prompt_encoder.prompt_size == 1024


@pytest.mark.parametrize("spec", SMALLER, ids=named)
def test_weights_and_everything_but_the_input_are_mobilesams(spec: VariantSpec) -> None:
    assert spec.weights_name == LARGE.weights_name
    assert weights_path(spec) == weights_path(LARGE)
    assert spec.sources == LARGE.sources
    assert (spec.prompt_size, spec.low_res_size) == (LARGE.prompt_size, LARGE.low_res_size)
    assert tuple(spec.precisions) == tuple(LARGE.precisions)


def test_every_plan_but_fp16_has_measured_accuracy_and_larger_inputs_have_more() -> None:
    for name in LARGE.precisions:
        found = [spec.precisions[name].accuracy for spec in ALL]
        if name == "fp16":
            assert found == [None, None, None]
            continue
        boxes = [accuracy.box for accuracy in found if accuracy]
        points = [accuracy.point for accuracy in found if accuracy]
        assert len(boxes) == 3
        assert boxes == sorted(boxes, reverse=True)
        assert points == sorted(points, reverse=True)


@pytest.mark.parametrize(("source", "target"), [(32, 64), (48, 64), (64, 64), (5, 9), (24, 64)])
def test_resampling_is_torchs_bicubic_interpolation(source: int, target: int) -> None:
    maps = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 7, source, source)).astype(np.float32))
    expected = F.interpolate(maps, (target, target), mode="bicubic", align_corners=False)
    tokens = Resample(source, target, 7)(maps.permute(0, 2, 3, 1).reshape(2, source**2, 7))
    found = tokens.reshape(2, target, target, 7).permute(0, 3, 1, 2)
    # Two f32 products against one: rounding alone, of values around 1.
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_resampling_keeps_what_is_the_same_everywhere() -> None:
    torch.testing.assert_close(cubic_weights(32, 64).sum(1), torch.ones(64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_prompts_land_in_the_1024_frame_whatever_the_encoders_side(size: tuple[int, int]) -> None:
    coords = np.array([[0, 0], [size[1] / 3, size[0] / 2], [size[1], size[0]]], np.float32)
    large = frame_of(*size, LARGE).to_prompt(coords)
    for spec in SMALLER:
        frame = frame_of(*size, spec)
        found = frame.to_prompt(coords)
        # The long side's scale is the same exactly. The short side is rounded to whole pixels in both frames, by half
        # of one at most, and a smaller frame's pixel is larger.
        off = 0.5 * (1 + 1024 / spec.input_size)
        np.testing.assert_allclose(found, large, atol=off, rtol=0)
        long = int(np.argmax(size))
        np.testing.assert_allclose(found[:, 1 - long], large[:, 1 - long], rtol=1e-6)
        share = frame.resized[0] / frame.side
        assert found[2, 1] == pytest.approx(1024 * share, rel=1e-6)


def test_prompts_are_the_same_where_no_size_is_rounded() -> None:
    coords = np.array([[12.5, 470], [639, 0.25]], np.float32)
    first, *others = (frame_of(480, 640, spec).to_prompt(coords).tolist() for spec in ALL)
    assert others == [first, first]


@pytest.mark.parametrize("size", SIZES[:5])
def test_a_mask_lies_on_the_same_pixels_whatever_the_encoders_side(size: tuple[int, int]) -> None:
    expected = disc(size)
    for spec in ALL:
        frame = frame_of(*size, spec)
        mask = finish(low_res_disc(frame), frame, 0.0).mask.astype(bool)
        # A low-res pixel is several pixels wide: edges may wander by a fraction of one, the disc as a whole not at all.
        assert iou(mask, expected) > 0.985
        np.testing.assert_allclose(centre_of(mask), centre_of(expected), atol=0.002 * max(size))
        assert mask.sum() == pytest.approx(expected.sum(), rel=0.012)


@pytest.mark.parametrize("spec", SMALLER, ids=named)
def test_where_the_image_ends_in_the_input_its_mask_ends(spec: VariantSpec) -> None:
    image = np.full((427, 640, 3), 200, np.uint8)
    square, frame = encoder_input(image, spec)
    assert square.shape == (spec.input_size, spec.input_size, 3)
    filled = np.flatnonzero(square.any(axis=(1, 2)))
    assert filled[-1] + 1 == frame.resized[0]
    # Logits that are positive down to where the image ends, and nowhere below.
    rows = (np.arange(256, dtype=np.float32) + 0.5) * (frame.side / 256)
    low_res = np.repeat((frame.resized[0] - rows)[:, None], 256, axis=1).astype(np.float32)
    assert finish(low_res, frame, 0.0).box == (0, 0, 640, 427)
    assert finish(low_res - 2 * frame.resized[0] / 427, frame, 0.0).box == (0, 0, 640, 425)


def disc(size: tuple[int, int]) -> BoolArray:
    """Bool ``[H, W]``: a disc near the far corner, where a wrong scale shifts most."""
    (cy, cx), radius = centre_and_radius(size)
    y, x = np.mgrid[: size[0], : size[1]]
    return np.asarray(np.hypot(y + 0.5 - cy, x + 0.5 - cx) < radius)


def low_res_disc(frame: Frame) -> FloatArray:
    """Logits ``[256, 256]`` over the padded square whose zero is the edge of :func:`disc`."""
    (cy, cx), radius = centre_and_radius(frame.original)
    at = (np.arange(256, dtype=np.float64) + 0.5) * (frame.side / 256)
    y = at[:, None] * (frame.original[0] / frame.resized[0])
    x = at[None] * (frame.original[1] / frame.resized[1])
    return (radius - np.hypot(y - cy, x - cx)).astype(np.float32)


def centre_and_radius(size: tuple[int, int]) -> tuple[tuple[float, float], float]:
    radius = 0.3 * min(size)
    return (size[0] - 1.1 * radius, size[1] - 1.1 * radius), radius


def centre_of(mask: BoolArray) -> NDArray[np.float64]:
    return np.asarray(np.argwhere(mask).mean(axis=0))


def iou(one: BoolArray, other: BoolArray) -> float:
    return float((one & other).sum() / (one | other).sum())
