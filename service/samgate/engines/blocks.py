"""Masks of one prompt, made where they are needed: a few hundred of their blocks of 4 × 4 pixels.

The others are, all over, what is known of one of their pixels. This is a tenth of the work of whole masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from samgate.domain import BoolArray, FloatArray
from samgate.engines.terms import Terms
from samgate.variants.graphs import EVERYTHING_BLOCKS

Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """``EVERYTHING_BLOCKS`` blocks of a prompt's masks: their ``places`` in the image, row by row, and what ``upscale``
    is to be given (:class:`samgate.variants.nets.sam.UpscaleGraph`)."""

    places: Places
    inputs: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """S masks of one prompt before their blocks are made: ``tokens`` int32 ``[S]``, logits of one pixel a block
    ``coarse`` float32 ``[S, H, H]``, and ``parts`` to make."""

    tokens: NDArray[np.int32]
    coarse: FloatArray
    parts: tuple[Part, ...]

    def finish(self, made: Sequence[FloatArray], masks: FloatArray) -> None:
        """Write the masks into ``masks`` float32 ``[S, 4H, 4H]``: ``made`` are the parts' logits ``[M, B, 4, 4]``."""
        count, side, _ = self.coarse.shape
        blocks = masks.reshape(count, side, 4, side, 4)
        blocks[:] = self.coarse[:, :, None, :, None]
        for part, logits in zip(self.parts, made, strict=True):
            rows, columns = np.divmod(part.places, side)
            for mask, token in zip(blocks, self.tokens, strict=True):
                mask[rows, :, columns] = logits[token]


def sketch(
    terms: Terms,
    attended: Sequence[NDArray[Any]],
    prompt: int,
    tokens: NDArray[np.int32],
    blocks: BoolArray,
) -> Sketch:
    """What is to be made of a prompt's masks ``tokens`` ``[S]``, all copied.

    Args:
        terms: of the image.
        attended: what ``attend`` found (:class:`samgate.variants.nets.sam.AttendGraph`).
        prompt: its number there.
        tokens: of the masks.
        blocks: that are needed of each, bool ``[S, H, H]``.
    """
    _, coarse, mask_tokens, scale, weights, vectors = attended
    own = {"mask_tokens": mask_tokens[prompt].copy(), "token_vectors": vectors[prompt].copy()}
    tile = weights.shape[-1]

    def parts() -> Iterator[Part]:
        for places in _divided(np.any(blocks, axis=0)):
            tiles, columns = np.divmod(terms["image_places"][places], tile)
            rows = {
                "block_scale": scale[tiles, prompt, :, columns],
                "block_weights": weights[tiles, prompt, :, columns],
                "block_pixels": terms["image_pixels"][0, places],
            }
            yield Part(places, own | rows)

    return Sketch(tokens, coarse[0, prompt, tokens], tuple(parts()))


def _divided(blocks: BoolArray) -> list[Places]:
    """The places of ``blocks`` ``[H, H]``, and of as many that are nearest to them as there is room for."""
    needed = int(np.count_nonzero(blocks))
    if not needed:
        return []
    distances = cv2.distanceTransform((~blocks).astype(np.uint8), cv2.DIST_L2, 3).ravel()
    count = -(-needed // EVERYTHING_BLOCKS) * EVERYTHING_BLOCKS
    nearest = np.argpartition(distances, count - 1)[:count]
    return list(nearest.reshape(-1, EVERYTHING_BLOCKS))
