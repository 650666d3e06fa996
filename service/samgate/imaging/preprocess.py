"""An image → the encoder's square input."""

from __future__ import annotations

import numpy as np
from PIL import Image

from samgate.domain import Frame, UInt8Array
from samgate.variants.spec import ResizeRule, VariantSpec


def frame_of(height: int, width: int, spec: VariantSpec) -> Frame:
    """Where an image of ``height`` × ``width`` pixels lies in the input of ``spec``'s encoder."""
    match spec.resize:
        case ResizeRule.LONGEST_SIDE:
            resized = longest_side(height, width, spec.input_size)
            return Frame((height, width), resized, spec.input_size, spec.prompt_size)


def longest_side(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) with the longer of both ``side``: segment_anything's ``ResizeLongestSide``.

    Upstream's short side is 0 for an image more than twice as long as ``side`` × its width, and fails; here it is 1.
    """
    scale = side * 1.0 / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def encoder_input(image: UInt8Array, spec: VariantSpec) -> tuple[UInt8Array, Frame]:
    """``image`` uint8 ``[H, W, 3]`` RGB → uint8 ``[S, S, 3]``, and where it lies in there.

    Bit for bit what upstream feeds its encoder: Pillow's antialiased bilinear resize, zeros to the right and below.
    (Zeros because that is what the graphs' normalisation expects of padding; they normalise first and pad after.)
    """
    frame = frame_of(image.shape[0], image.shape[1], spec)
    height, width = frame.resized
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    square = np.zeros((frame.side, frame.side, 3), dtype=np.uint8)
    square[:height, :width] = np.asarray(resized)
    return square, frame
