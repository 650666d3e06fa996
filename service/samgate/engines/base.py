"""What an engine is: the graphs of one variant, run on batches.

Embedded engines and Triton implement the same interface. An engine gets formed batches and runs them; it does not
queue, route or retry. All of its methods are safe to call from the event loop: inference happens elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from samgate.domain import Choose, FloatArray, IntArray, Survivors, UInt8Array
from samgate.variants.clip import ClipSpec
from samgate.variants.detectors import DetectorSpec


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
    """How much one call may hold: ``max_images`` an encoder's; ``decode_images`` and ``max_prompts`` (I × P) a
    decoder's; and calls of each kind at once. SegEvery has ``lanes``, each for a call of its own, where ``together``
    prompts take as long as one."""

    max_images: int
    decode_images: int
    max_prompts: int
    parallel_calls: int
    together: int = 1
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """Whether ``model`` is believed to run on the server at ``url``."""

    url: str
    model: str
    healthy: bool


@runtime_checkable
class Remote(Protocol):
    """What runs on servers."""

    def servers(self) -> list[ServerHealth]:
        """What is believed of each model on each of them, as far as they were called."""


class Detector(Protocol):
    """An object detector, loaded. Deadlines are as an :class:`Engine`'s."""

    @property
    def name(self) -> str:
        """``openvino``, ``onnxruntime`` or ``triton``."""

    @property
    def spec(self) -> DetectorSpec:
        """With the input size of what is loaded."""

    async def detect(self, pixels: UInt8Array, deadline: float) -> tuple[FloatArray, FloatArray]:
        """The candidates in a letterboxed image, uint8 ``[S, S, 3]`` RGB: boxes float32 ``[N, 4]`` (x0, y0, x1, y1) in
        its pixels and their scores float32 ``[N]``, in no order.

        Raises :class:`~samgate.errors.Unavailable` when it can't run, :class:`~samgate.errors.Overloaded` when too many
        calls wait, and :class:`~samgate.errors.DeadlineExceeded`.
        """

    async def healthy(self) -> bool:
        """Whether a call made now can be expected to succeed."""

    async def close(self) -> None:
        """Let running calls finish and free everything. Calls made later raise Unavailable."""


class TextModel(Protocol):
    """A text model, loaded. Deadlines are as an :class:`Engine`'s. Both methods raise
    :class:`~samgate.errors.Unavailable` when it can't run, :class:`~samgate.errors.Overloaded` when too many calls
    wait, and :class:`~samgate.errors.DeadlineExceeded`."""

    @property
    def name(self) -> str:
        """``openvino``, ``onnxruntime``, ``torch`` or ``triton``."""

    @property
    def spec(self) -> ClipSpec: ...

    async def image_features(self, crops: UInt8Array, deadline: float) -> FloatArray:
        """Of at most :data:`~samgate.variants.clip.MOST_CROPS` images, uint8 ``[N, S, S, 3]`` RGB: float32 ``[N, W]``,
        of the length 1."""

    async def text_features(self, tokens: IntArray, deadline: float) -> FloatArray:
        """Of at most :data:`~samgate.variants.clip.MOST_TEXTS` texts, int32 ``[N, context]``: float32 ``[N, W]``, of
        the length 1."""

    async def healthy(self) -> bool:
        """Whether a call made now can be expected to succeed."""

    async def close(self) -> None:
        """Let running calls finish and free everything. Calls made later raise Unavailable."""


class Engine(Protocol):
    """One variant, loaded.

    Deadlines are on :func:`time.monotonic`'s clock: no result is of use after one. A call that is cancelled is stopped
    where the runtime can do that. Arrays that come back may lie in memory that the engine lends: they stay valid for as
    long as they are referred to, and the engine has the less to give away in the meantime.
    """

    @property
    def name(self) -> str:
        """``openvino``, ``onnxruntime``, ``triton`` …"""

    @property
    def precision(self) -> str:
        """The name of the precision plan that runs."""

    @property
    def capacity(self) -> Capacity: ...

    async def encode(self, images: Images, deadline: float) -> list[FloatArray]:
        """An embedding float32 ``[256, 64, 64]`` for each image, each to be kept and given up on its own.

        Raises :class:`~samgate.errors.Unavailable` when it can't run.
        """

    async def decode(self, embeddings: Sequence[FloatArray], prompts: Prompts, deadline: float) -> Decoded:
        """Masks for prompts on I embeddings, as :meth:`encode` made them. Raises as that does."""

    async def survivors(self, embedding: FloatArray, prompts: Prompts, choose: Choose, deadline: float) -> Survivors:
        """Of prompts without masks on one image (I = 1), of two points each, the masks that ``choose`` wants. It is
        called for some of them after the other, on any thread. Raises as :meth:`encode` does."""

    async def healthy(self) -> bool:
        """Whether a call made now can be expected to succeed."""

    async def close(self) -> None:
        """Let running calls finish and free everything. Calls made later raise Unavailable."""
