"""The encoder's input is upstream's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from samgate.imaging.preprocess import encoder_input, frame_of, longest_side
from samgate.variants import get_variant

SPEC = get_variant("mobilesam")


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((1200, 1800), (683, 1024)),
        ((480, 640), (768, 1024)),
        ((640, 427), (1024, 683)),
        ((1024, 1024), (1024, 1024)),
        ((1, 1), (1024, 1024)),
        ((1365, 2048), (683, 1024)),  # 682.5 is rounded up
        ((1, 10_000), (1, 1024)),
        ((65_535, 1), (1024, 1)),
    ],
)
def test_longest_side(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert longest_side(*size, 1024) == resized
    frame = frame_of(*size, SPEC)
    assert (frame.original, frame.resized, frame.side) == (size, resized, 1024)


@pytest.mark.parametrize("size", [(37, 53), (300, 1500), (1024, 700), (1, 4000)])
def test_input_is_pillows_bilinear_resize_and_zeros(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    square, frame = encoder_input(image, SPEC)
    height, width = frame.resized
    expected = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    assert square.shape == (1024, 1024, 3)
    assert square.dtype == np.uint8
    assert np.array_equal(square[:height, :width], expected)
    assert not square[height:].any()
    assert not square[:, width:].any()


def test_parts_of_an_image_are_accepted() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    part = image[10:70, 20:110]
    assert np.array_equal(encoder_input(part, SPEC)[0], encoder_input(part.copy(), SPEC)[0])


def test_coordinates_follow_the_resize() -> None:
    frame = frame_of(1200, 1800, SPEC)
    corner = frame.to_prompt(np.array([[1800, 1200]], dtype=np.float32))
    assert corner.tolist() == [[1024, 683]]
