"""An image → the encoder's square input."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from samgate.domain import Frame, UInt8Array
from samgate.imaging.letterbox import letterboxed, place_in
from samgate.variants.detectors import ULTRALYTICS
from samgate.variants.spec import ResizeRule, VariantSpec


def frame_of(height: int, width: int, spec: VariantSpec) -> Frame:
    """Where an image of ``height`` × ``width`` pixels lies in the input of ``spec``'s encoder."""
    side, scale, fed, offset = spec.input_size, None, None, None
    match spec.resize:
        case ResizeRule.LONGEST_SIDE:
            resized = longest_side(height, width, side)
        case ResizeRule.LONGEST_SIDE_CUT:
            # Upstream's own steps: a product with the scale would round 1024 down to 1023 for a tenth of all sizes.
            scale, aspect = side / max(height, width), width / height
            short = max(1, int(side / aspect if aspect >= 1 else side * aspect))
            resized = (short, side) if aspect >= 1 else (side, short)
        case ResizeRule.LONGEST_SIDE_APART:
            fed, side = longest_side(height, width, side), spec.prompt_size
            resized = longest_side(height, width, side)
        case ResizeRule.SQUASH | ResizeRule.SQUASH_ROUGH:
            resized = side, side
        case ResizeRule.LETTERBOX:
            place = place_in(height, width, side, ULTRALYTICS)
            resized, offset = place.resized, place.offset
    return Frame((height, width), resized, side, spec.prompt_size, scale, spec.mask_sampling, fed, offset)


def longest_side(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) with the longer of both ``side``: segment_anything's ``ResizeLongestSide``.

    Upstream's short side is 0 for an image more than twice as long as ``side`` × its width, and fails; here it is 1.
    """
    scale = side * 1.0 / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def encoder_input(image: UInt8Array, spec: VariantSpec) -> tuple[UInt8Array, Frame]:
    """``image`` uint8 ``[H, W, 3]`` RGB → uint8 ``[S, S, 3]``, and where it lies in there.

    Bit for bit what upstream feeds its encoder, where that resizes whole numbers, as SAM does: Pillow's antialiased
    resize, zeros to the right and below. (Zeros because that is what the graphs' normalisation expects of padding; they
    normalise first and pad after.) Upstreams that resize fractions, SAM 2 and EfficientSAM, are met to a
    grey level, a third of one in the mean.
    """
    frame = frame_of(image.shape[0], image.shape[1], spec)
    if spec.resize is ResizeRule.LETTERBOX:
        return letterboxed(image, spec.input_size, ULTRALYTICS)[0], frame
    (height, width), side = frame.valid, spec.input_size
    if spec.resize is ResizeRule.SQUASH_ROUGH:
        # Of 8 bits OpenCV interpolates in whole numbers, a quarter of a grey level off and an eighth too dark.
        wide = cv2.resize(image.astype(np.uint16), (width, height), interpolation=cv2.INTER_LINEAR)
        resized = wide.astype(np.uint8)
    else:
        cubic = spec.resize is ResizeRule.LONGEST_SIDE_CUT
        kernel = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
        resized = np.asarray(Image.fromarray(image).resize((width, height), kernel))
    if frame.valid == (side, side):
        return np.ascontiguousarray(resized, dtype=np.uint8), frame
    square = np.zeros((side, side, 3), dtype=np.uint8)
    square[:height, :width] = resized
    return square, frame
