"""What an engine is: two graphs of one variant, run on batches.

Embedded engines and Triton implement the same interface. An engine gets formed batches and runs them; it does not
queue, route or retry. All of its methods are safe to call from the event loop: inference happens elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from samgate.domain import FloatArray, IntArray, UInt8Array


@dataclass(frozen=True, slots=True)
class Images:
    """Encoder batch: ``pixels`` uint8 ``[N, S, S, 3]`` RGB resized and padded; ``valid`` int32 ``[N, 2]``: the (height,
    width) of each image that isn't padding."""

    pixels: UInt8Array
    valid: IntArray


@dataclass(frozen=True, slots=True)
class Prompts:
    """Decoder batch for I images × P prompts × K points.

    ``coords`` float32 ``[I, P, K, 2]`` in encoder-input pixels; ``labels`` int32 ``[I, P, K]`` (−1 pad, 0 background,
    1 foreground, 2 and 3 box corners); ``masks`` float32 ``[I, P, 1, 256, 256]`` with ``has_mask`` float32 ``[I, P]``
    (1 where the prompt has a mask), or both None.
    """

    coords: FloatArray
    labels: IntArray
    masks: FloatArray | None = None
    has_mask: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """``low_res_masks`` float32 ``[I, P, M, 256, 256]`` logits and ``iou_predictions`` float32 ``[I, P, M]``."""

    low_res_masks: FloatArray
    iou_predictions: FloatArray


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much one call may hold: images an encode, prompts (I × P) a decode, and calls of each kind at once."""

    max_images: int
    max_prompts: int
    parallel_calls: int


class Engine(Protocol):
    """One variant, loaded."""

    @property
    def name(self) -> str:
        """``openvino``, ``onnxruntime``, ``triton`` …"""

    @property
    def precision(self) -> str:
        """The name of the precision plan that runs."""

    @property
    def capacity(self) -> Capacity: ...

    async def encode(self, images: Images) -> FloatArray:
        """Embeddings float32 ``[N, 256, 64, 64]``. Raises :class:`~samgate.errors.Unavailable` when it can't run."""

    async def decode(self, embeddings: FloatArray, prompts: Prompts) -> Decoded:
        """Masks for prompts on ``embeddings`` ``[I, 256, 64, 64]``. Raises as :meth:`encode` does."""

    async def healthy(self) -> bool:
        """Whether a call made now can be expected to succeed."""

    async def close(self) -> None:
        """Let running calls finish and free everything. Calls made later raise Unavailable."""
