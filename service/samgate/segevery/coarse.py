"""Masks by samples: every fourth row and column of their logits, which are known before the masks are made."""

from __future__ import annotations

import cv2
import numpy as np

from samgate.domain import BoolArray, FloatArray, Frame

STEP, FIRST = 4, 1
"""Rows and columns of low-res logits that coarse ones have: each ``STEP``-th from ``FIRST`` on."""
_MARGIN = 3.0
"""Logits. Of 561 stable masks of five photographs 99% have an IoU above 0.99 with what they are when made in full, one
has it below 0.98; with a margin of 1 that is 0.987, for a fifth less work."""
_NEIGHBOURS = np.ones((3, 3), np.uint8)


def coarse_of(masks: FloatArray) -> FloatArray:
    """What low-res logits ``[..., 256, 256]`` are coarsely: ``[..., 64, 64]``."""
    return masks[..., FIRST::STEP, FIRST::STEP]


def samples_on(frame: Frame, side: int) -> tuple[int, int]:
    """Rows and columns of samples on the image in ``frame``, of ``side`` on the padded square; at least one."""
    height, width = (max(1, int(np.ceil(resized * side / frame.side - FIRST / STEP))) for resized in frame.resized)
    return height, width


def outlines(coarse: FloatArray, points: FloatArray, frame: Frame, threshold: float, offset: float) -> BoolArray:
    """Where pixels may be on another side of the threshold than the sample of their block.

    They are not where samples are far from it, and so are all eight neighbours on the same side. The blocks of the
    prompt and of the highest sample are always made: masks of a few pixels may lie between all samples.

    Args:
        coarse: logits of masks, float32 ``[S, H, H]``.
        points: their prompts, float32 ``[S, 2]`` (x, y) in the image's pixels.
        frame: where the image is; what padding is doesn't matter.
        threshold: the variant's, in logits.
        offset: of the stability score, in logits: the threshold is shifted by it, too.

    Returns:
        bool ``[S, H, H]``, the blocks to be made.
    """
    far = _MARGIN + offset
    found = np.zeros(coarse.shape, np.bool_)
    # Bilinear interpolation reads one beyond the image.
    height, width = (min(samples + 1, coarse.shape[-1]) for samples in samples_on(frame, coarse.shape[-1]))
    for mask, blocks in zip(coarse[:, :height, :width] - np.float32(threshold), found, strict=True):
        inside, outside = (cv2.erode((one > far).astype(np.uint8), _NEIGHBOURS) for one in (mask, -mask))
        blocks[:height, :width] = (inside == 0) & (outside == 0)
        blocks[np.unravel_index(mask.argmax(), mask.shape)] = True
    columns, rows = (frame.to_prompt(points) * (coarse.shape[-1] / frame.prompt_side)).astype(np.intp).T
    found[np.arange(len(found)), rows.clip(0, height - 1), columns.clip(0, width - 1)] = True
    return found
