"""The data that the stages hand to each other: requests and answers in the field's terms, free of proto and I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

_LOW_RES = 256
"""Side of low-res masks."""

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
BoolArray = NDArray[np.bool_]


class Selection(StrEnum):
    """Which of a prompt's masks are answered."""

    SINGLE = "single"
    MULTI = "multi"
    BEST = "best"


class Format(StrEnum):
    """How masks are encoded in an answer."""

    RLE = "rle"
    PNG = "png"
    POLYGONS = "polygons"
    PACKED_BITS = "packed_bits"
    LOW_RES_LOGITS = "low_res_logits"


class MaskSampling(StrEnum):
    """How low-res logits become an image's."""

    VIA_INPUT = "via_input"
    """Bilinear to the encoder's input, cut to the image in there, bilinear to the image (SAM's)."""
    DIRECT = "direct"
    """Cut to the image, then bilinear to it, at once (SAM 2's); the cut is at a whole low-res pixel (NanoSAM's)."""
    DIRECT_CUBIC = "direct_cubic"
    """The same by bicubic interpolation (EfficientSAM's)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where an image lies in the encoder's square input. Sizes are (height, width) in pixels.

    ``original`` is the image's size, ``resized`` the part of the ``side`` × ``side`` input that it fills, from the
    top left corner or from ``offset`` (rows, columns) on; the rest is padding. Prompts are in another frame: the same
    padded square, but ``prompt_side`` pixels wide, whatever the encoder's side. Low-res masks cover this square, too.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    side: int
    prompt_side: int = 1024
    scale: float | None = None
    """Of coordinates on both axes, where it isn't each axis's own."""
    sampling: MaskSampling = MaskSampling.VIA_INPUT
    """How logits of masks are brought from there to the image."""
    fed: tuple[int, int] | None = None
    """See ``valid``, where that isn't ``resized``."""
    offset: tuple[int, int] | None = None
    """Of the image, where that isn't in the top left corner. Prompts go by :meth:`cut` then: a mask is on the pixels of
    the image that it is drawn on, not a part of a low-res pixel beside them."""

    @property
    def valid(self) -> tuple[int, int]:
        """What the image fills of the encoder's input: ``resized``, but for systems that feed their encoder less than
        the ``side`` that all else goes by."""
        return self.fed or self.resized

    def cut(self, size: int) -> tuple[slice, slice]:
        """Of ``size`` × ``size`` low-res logits the rows and columns on the image, whole ones: as many as the image
        itself has of a square around it where it keeps its shape."""
        if self.offset is not None:
            # FastSAM's: cut to whole numbers at both ends. Upstream takes the image's sides before they are rounded,
            # which an encoder isn't told, and once in a while comes to another pixel.
            pads = ((size - side * size / self.side) / 2 for side in self.resized)
            rows, columns = (slice(int(pad), max(int(pad) + 1, int(size - pad))) for pad in pads)
            return rows, columns
        sides, whole = (self.resized, self.side) if self.scale is None else (self.original, max(self.original))
        rows, columns = (slice(0, max(1, int(size * side / whole))) for side in sides)
        return rows, columns

    def to_prompt(self, coords: FloatArray) -> FloatArray:
        """Coordinates ``[..., 2]`` (x, y) in image pixels → pixels of the prompt frame.

        Upstream's ``apply_coords`` where both frames are one. Where they aren't, a coordinate still lands on the pixel
        that it is meant for: the scale is that of ``resized``, whose rounding moved the pixels.
        """
        scale, start = self._axes()
        return np.asarray(coords * scale + start, dtype=np.float32)

    def from_prompt(self, coords: FloatArray) -> FloatArray:
        """The inverse of :meth:`to_prompt`."""
        scale, start = self._axes()
        return np.asarray((coords - start) / scale, dtype=np.float32)

    def _axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of x and y, the prompt frame's pixels to one of the image, and where the image begins."""
        if self.offset is not None:
            cuts, unit = self.cut(_LOW_RES)[::-1], self.prompt_side / _LOW_RES
            scales = [(cut.stop - cut.start) / side for cut, side in zip(cuts, self.original[::-1], strict=True)]
            return np.array(scales) * unit, np.array([cut.start for cut in cuts]) * unit
        axes = [self.resized[1] / self.original[1], self.resized[0] / self.original[0]]
        scale = np.array(axes if self.scale is None else [self.scale] * 2, dtype=np.float64)
        return scale * (self.prompt_side / self.side), np.zeros(2)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One object to segment; coordinates are (x, y) in image pixels.

    ``points`` is float32 ``[K, 2]`` with ``labels`` int32 ``[K]`` (1 foreground, 0 background), K may be 0; ``box``
    is float32 ``[4]`` (x0, y0, x1, y1); ``mask_logits`` is float32 ``[256, 256]``; ``text``, words for it, comes with
    none of these, empty without.
    """

    points: FloatArray
    labels: IntArray
    box: FloatArray | None = None
    mask_logits: FloatArray | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Survivors:
    """Those of P prompts' M masks each that were wanted.

    ``masks`` float32 ``[S, 256, 256]`` logits, all over a block as in its known one where the others weren't needed;
    ``kept`` int32 ``[S, 2]``, the prompt and the mask token of each, in that order; ``ious`` float32 ``[P, M]``, the
    predicted IoU of all masks.
    """

    masks: FloatArray
    kept: IntArray
    ious: FloatArray


@dataclass(frozen=True, slots=True)
class Chosen:
    """The masks to make: ``kept`` int32 ``[S, 2]``, the prompt and the mask token of each, in that order; ``blocks``
    bool ``[S, 64, 64]``, of which 4 × 4 logits each of them is needed, not just the one that is known."""

    kept: IntArray
    blocks: BoolArray


Choose = Callable[[FloatArray, FloatArray], Chosen]
"""Which of P prompts' M masks to make: predicted IoU float32 ``[P, M]`` and every fourth row and column of the logits,
float32 ``[P, M, 64, 64]``, from the second on. The arrays are lent for the call alone."""


def least_ious(masks: int, tokens: Sequence[int], least: float) -> FloatArray:
    """What predicted IoU masks have to be above to survive, float32 ``[masks]``: ``least`` for ``tokens``, +∞, which no
    mask is, for all others."""
    bounds = np.full(masks, np.inf, np.float32)
    bounds[list(tokens)] = least
    return bounds


@dataclass(frozen=True, slots=True)
class FinishedMask:
    """A mask at the image's size.

    ``mask`` is uint8 ``[H, W]`` of 0 and 1; ``box`` is (x0, y0, x1, y1) with x1 and y1 exclusive, None when the mask
    is empty; ``area`` is in pixels.
    """

    mask: UInt8Array
    box: tuple[int, int, int, int] | None
    area: int
    stability_score: float


@dataclass(frozen=True, slots=True)
class Rle:
    """COCO compressed run-length encoding: ``size`` is (height, width), ``counts`` as pycocotools has it."""

    size: tuple[int, int]
    counts: bytes


@dataclass(frozen=True, slots=True)
class Polygon:
    """One outline: float32 ``[N, 2]`` (x, y) pixel centres; ``hole`` marks the outline of a hole."""

    points: FloatArray
    hole: bool
