"""Requests and answers between the API and the gateway: validated, in the field's terms, free of proto."""

from __future__ import annotations

from dataclasses import dataclass, field

from samgate.domain import FloatArray, Format, Polygon, Prompt, Rle, Selection
from samgate.scheduling.queue import Priority
from samgate.scheduling.request import Reason

EncodedMask = Rle | bytes | tuple[Polygon, ...]


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A JPEG, PNG or WebP file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class RawImage:
    """Rows of RGB triples."""

    width: int
    height: int
    rgb: bytes


@dataclass(frozen=True, slots=True)
class Handle:
    """Names an embedding that the gateway holds."""

    value: str


Image = EncodedImage | RawImage | Handle


@dataclass(frozen=True, slots=True)
class Wish:
    """How a request wants to be treated: ``arrival`` and ``deadline`` on :func:`time.monotonic`'s clock; ``variant`` a
    variant's or an operating point's name, empty for any; ``min_accuracy`` mIoU, 0 to 1; who asks, for fair shares."""

    arrival: float
    deadline: float
    variant: str = ""
    min_accuracy: float = 0.0
    priority: Priority = Priority.INTERACTIVE
    client: str = ""


@dataclass(frozen=True, slots=True)
class SegmentCall:
    """Prompts on one image."""

    image: Image
    prompts: tuple[Prompt, ...]
    selection: Selection
    format: Format
    return_logits: bool
    wish: Wish


@dataclass(frozen=True, slots=True)
class AnsweredMask:
    """One mask of an answer.

    ``data`` is None when only logits were asked for, ``low_res`` float32 ``[256, 256]`` when they weren't; ``box`` is
    (x0, y0, x1, y1) with x1 and y1 exclusive, None for an empty mask; ``area`` is in pixels.
    """

    data: EncodedMask | None
    box: tuple[int, int, int, int] | None
    area: int
    stability_score: float
    predicted_iou: float
    low_res: FloatArray | None


@dataclass(slots=True)
class Trace:
    """How an answer came about; ``stages_s`` holds the seconds of each stage.

    ``accuracy`` is the operating point's mIoU (0 to 1) for this kind of prompt, ``reason`` why it was chosen,
    ``predicted_s`` the time from arrival to answer that was predicted, ``price`` the load price at the time.
    """

    variant: str
    precision: str
    engine: str
    handle: str = ""
    cached: bool = False
    size: tuple[int, int] = (0, 0)
    prompts: int = 0
    masks: int = 0
    accuracy: float = 0.0
    reason: Reason = Reason.NAMED
    predicted_s: float = 0.0
    price: float = 0.0
    strategy: str = ""
    """Of SegmentEverything; what follows is of interest there alone."""
    complete: bool = True
    """Whether all of its prompts were decoded, and all masks sent."""
    stages_s: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, seconds: float) -> None:
        """Count ``seconds`` for ``stage``."""
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + seconds
