"""What the client's calls return: the contract's messages as typed, frozen data. Sizes are (height, width)."""

from __future__ import annotations

from dataclasses import dataclass

from samgate.domain import BoolArray, FloatArray, Format, Polygon, Rle
from samgate.errors import SamgateError


@dataclass(frozen=True, slots=True)
class Handle:
    """Names an image that a server has embedded; takes an image's place in later calls to the same server."""

    value: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds the server spent by stage; of SegEvery, sums over its chunks. ``detect_ms`` is a detector's,
    ``text_ms`` is for prompts in words."""

    imaging_ms: float
    queue_ms: float
    encode_ms: float
    decode_ms: float
    masks_ms: float
    total_ms: float
    detect_ms: float = 0.0
    text_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """Why the server chose this variant and precision: ``reason`` is ``named``, ``most_accurate``, ``deadline`` (a more
    accurate one would have been late) or ``load`` (it isn't worth its time now). ``accuracy`` is its mIoU (0 to 1) for
    this kind of prompt; ``predicted_ms`` the time to the answer as predicted, where ``Timings.total_ms`` is the actual
    one; ``load_price`` the mIoU that a second of the engine cost at the time."""

    reason: str
    accuracy: float
    predicted_ms: float
    deadline_ms: float
    load_price: float


@dataclass(frozen=True, slots=True)
class AnswerInfo:
    """How an answer was made. ``handle`` prompts the same image again without sending it, where there is one."""

    variant: str
    precision: str
    engine: str
    embedding_cached: bool
    handle: Handle | None
    timings: Timings
    decision: Decision


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """An image the server has embedded; give it to ``segment`` in place of the image.

    It is dropped after ``expires_in_s`` seconds without use, or earlier when the server needs the memory; calls then
    raise :class:`~samgate.errors.NotFound`.
    """

    handle: Handle
    size: tuple[int, int]
    expires_in_s: float
    info: AnswerInfo


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """One mask of an image of ``size``.

    ``encoded`` is the mask in ``format``: an :class:`~samgate.domain.Rle`, a PNG file, polygons, packed bits, or None
    for ``low_res_logits``. ``box`` is (x0, y0, x1, y1) with x1 and y1 exclusive, None for an empty mask; ``area`` is
    in pixels; ``low_res_logits`` is float32 ``[256, 256]`` over the encoder's padded square, when asked for.
    """

    size: tuple[int, int]
    format: Format
    encoded: Rle | bytes | tuple[Polygon, ...] | None
    box: tuple[int, int, int, int] | None
    area: int
    predicted_iou: float
    stability_score: float
    low_res_logits: FloatArray | None

    @property
    def rle(self) -> Rle | None:
        """The mask as COCO RLE if that is how it was asked for, else None."""
        return self.encoded if isinstance(self.encoded, Rle) else None

    def to_numpy(self) -> BoolArray:
        """The mask as bool ``[H, W]``, decoded anew by each call. Raises :class:`~samgate.errors.SamgateError` for
        an answer in ``low_res_logits``, which holds none."""
        # Imported here so that clients which keep masks encoded need neither OpenCV nor pycocotools.
        from samgate.imaging import formats

        match self.encoded:
            case Rle() as rle:
                mask = formats.rle_to_mask(rle)
            case bytes() as data if self.format is Format.PNG:
                mask = formats.png_to_mask(data)
            case bytes() as data:
                mask = formats.packed_to_mask(data, self.size)
            case tuple() as polygons:
                mask = formats.polygons_to_mask(polygons, self.size)
            case None:
                raise SamgateError(f"format {self.format.value!r} holds no mask: ask for another, or use the logits")
        return mask.astype(bool)


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Masks for each prompt, in the order of the prompts, on an image of ``size``."""

    results: tuple[tuple[Mask, ...], ...]
    size: tuple[int, int]
    info: AnswerInfo

    @property
    def masks(self) -> tuple[Mask, ...]:
        """The masks of a call with one prompt. Raises :class:`~samgate.errors.SamgateError` if it had several."""
        if len(self.results) != 1:
            raise SamgateError(f"masks is for calls with one prompt, this one had {len(self.results)}: use results")
        return self.results[0]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a SegEvery call is: prompts decoded, those that are known by now, and masks that passed the filters."""

    prompts_done: int
    prompts_total: int
    candidates: int


@dataclass(frozen=True, slots=True)
class EverythingMask:
    """A mask, the point (x, y) that found it (a box's centre if that did) and the crop (x0, y0, x1, y1), exclusive, it
    was found in. ``id`` is its own in this call."""

    mask: Mask
    point: tuple[float, float]
    crop_box: tuple[int, int, int, int]
    id: int = 0


@dataclass(frozen=True, slots=True)
class Retraction:
    """Masks of these ``ids``, sent earlier by an anytime call, no longer count: better ones have replaced them."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EverythingSummary:
    """The end of a SegEvery call: how many masks there are now, whether all prompts were decoded, of which strategy,
    and how many."""

    mask_count: int
    size: tuple[int, int]
    info: AnswerInfo
    complete: bool = True
    strategy: str = "grid"
    prompts_done: int = 0


EverythingEvent = Progress | EverythingMask | Retraction | EverythingSummary


@dataclass(frozen=True, slots=True)
class Everything:
    """The masks of an image of ``size``, in descending order of predicted IoU: all that ``strategy`` finds where
    ``complete``, else those that an anytime call has found by its deadline with ``prompts_done`` prompts."""

    masks: tuple[EverythingMask, ...]
    size: tuple[int, int]
    info: AnswerInfo
    complete: bool = True
    strategy: str = "grid"
    prompts_done: int = 0


@dataclass(frozen=True, slots=True)
class OperatingPointInfo:
    """A precision of a variant that requests may name, as ``variant:precision``, with its mIoU (0 to 1) and the
    milliseconds of one image and one prompt on the idle server."""

    name: str
    box_miou: float
    point_miou: float
    encode_ms: float
    decode_ms: float


@dataclass(frozen=True, slots=True)
class VariantInfo:
    """A variant that the server knows. ``input_size`` is in pixels, mIoU is on COCO val, 0 to 1, None if unpublished;
    ``install_command`` is empty for variants that are served.

    All take foreground points and boxes. Some take ``background_points``, some ``mask_logits`` of an earlier answer,
    some ``text``, for which the server needs a text model, too; ``max_points`` is the most of one prompt, where a box
    counts as two, None where only the server's limits count.
    ``strategies`` of ``everything`` apply to it; for ``object_aware`` the server needs a detector, too."""

    name: str
    title: str
    served: bool
    is_default: bool
    licence: str
    parameters: int
    input_size: int
    precision: str
    engine: str
    published_box_miou: float | None
    published_point_miou: float | None
    install_command: str
    operating_points: tuple[OperatingPointInfo, ...]
    background_points: bool
    mask_logits: bool
    max_points: int | None
    text: bool
    strategies: tuple[str, ...]
