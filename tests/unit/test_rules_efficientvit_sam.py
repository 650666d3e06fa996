"""EfficientViT-SAM's images, coordinates and masks lie where upstream's own predictor puts them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from parity.recording import GOLDEN, read
from parity.rules import SIZES, Size, coords_of, image_of, logits_of, sample
from samgate.imaging.masks import full_logits
from samgate.imaging.preprocess import encoder_input, frame_of
from samgate.variants import get_variant
from samgate.variants.nets.sam import EncoderGraph
from samgate.variants.spec import VariantSpec, resolve

SPECS = [get_variant("efficientvit-sam-l0"), get_variant("efficientvit-sam-xl0")]


@pytest.fixture(scope="module")
def upstream() -> dict[str, NDArray[Any]]:
    return dict(read(GOLDEN / "rules_efficientvit_sam.npz"))


@pytest.fixture(params=SPECS, ids=lambda spec: spec.name)
def spec(request: pytest.FixtureRequest) -> VariantSpec:
    found: VariantSpec = request.param
    return found


@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_the_encoder_is_fed_what_upstream_feeds_it(
    spec: VariantSpec, size: Size, upstream: dict[str, NDArray[Any]]
) -> None:
    class Nothing(torch.nn.Module):
        image_encoder = torch.nn.Identity()

    square, frame = encoder_input(image_of(size), spec)
    graph = EncoderGraph(Nothing(), spec.input_size, spec.pixel_mean, spec.pixel_std)  # type: ignore[arg-type]
    fed = graph(torch.tensor(square[None]), torch.tensor([frame.valid], dtype=torch.int32)).numpy()
    # Upstream divides by 255 first, which f32 rounds; a grey level would be 0.017.
    np.testing.assert_allclose(sample(fed), upstream[f"{spec.name}/{size}/input"], atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_coordinates_are_upstreams(spec: VariantSpec, size: Size, upstream: dict[str, NDArray[Any]]) -> None:
    found = frame_of(*size, spec).to_prompt(coords_of(size))
    # Upstream's are f64, and f32 has steps of 6e-5 at 1,000 pixels.
    np.testing.assert_allclose(found, upstream[f"{spec.name}/{size}/coords"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_masks_are_upstreams(spec: VariantSpec, size: Size, upstream: dict[str, NDArray[Any]]) -> None:
    logits = logits_of(size)
    found = sample(full_logits(logits, frame_of(*size, spec)))
    # Positions are f32, with steps of 6e-5 at 1,000 pixels, and logits change by up to 7 a pixel here.
    np.testing.assert_allclose(found, upstream[f"{spec.name}/{size}/logits"], atol=1e-3, rtol=0)


def test_a_smaller_input_shifts_neither_coordinates_nor_masks() -> None:
    small, large = (frame_of(427, 640, spec) for spec in SPECS)
    assert (small.valid, large.valid) == ((342, 512), (683, 1024))
    assert (small.resized, small.side) == (large.resized, large.side) == ((683, 1024), 1024)


def test_layer_norms_of_the_decoder_add_what_upstreams_do(upstream: dict[str, NDArray[Any]]) -> None:
    # Upstream sets all of EfficientViT-SAM's, and of MobileSAMv2 the encoder's alone. With the activations that parity
    # is tested on, it makes too little of a difference to be seen.
    for name, expected in (("efficientvit-sam-l0", upstream["efficientvit-sam-l0/decoder_eps"]), ("mobilesamv2", 1e-5)):
        spec = get_variant(name)
        with torch.device("meta"):
            decoder = resolve(spec.network)(spec.reduced()).mask_decoder
        found = [norm.eps for norm in decoder.modules() if isinstance(norm, torch.nn.LayerNorm)]
        assert len(found) == 9
        np.testing.assert_array_equal(found, np.broadcast_to(expected, 9))
