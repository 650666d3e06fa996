"""Object detectors, as data: their boxes prompt the decoder where SegEvery looks for objects instead of a grid.

All detectors are class-agnostic here (MobileSAMv2, arXiv 2312.09579: an object's box is what counts, not its name), and
look the same to engines once :mod:`samgate.compile.detector` has wrapped their graphs. What differs stands in a
:class:`DetectorSpec`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from samgate.errors import NotFound
from samgate.variants.graphs import GraphSpec, TensorSpec
from samgate.variants.islands import RESIZE
from samgate.variants.spec import Island, UrlSource

STRIDES = (8, 16, 32)
"""Pixels between the places where the levels of a head look for objects; the same in YOLOX and YOLOv8."""

PRECISIONS = ("f32", "fp16")
"""What detectors are compiled in, the fastest last; fp16 where the graph's types decide (TensorRT)."""

ISLANDS = (
    Island(
        name="boxes",
        operators=("Add", "Concat", "Exp", "Mul", "Reshape", "Slice", "Sub", "Transpose"),
        names="^samgate/",
        reason="fp16 has steps of half a pixel from 512 on",
    ),
    RESIZE,
)
"""What stays in f32 in detectors of low arithmetic."""


@dataclass(frozen=True, slots=True)
class Head:
    """How a network puts out its candidates.

    ``channels_first``: its output is ``[1, C, N]``, else ``[1, N, C]``. The C channels of a candidate are the centre
    and the size of its box; its ``objectness``, where it has one; a probability for each class; and ``coefficients`` of
    its mask, where the network has an output of prototypes as well. ``decoded``: boxes are in pixels of the input, else
    relative to the places of the grid, in strides, and sizes are logarithms.
    """

    channels_first: bool
    decoded: bool
    objectness: bool
    coefficients: int = 0


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image of any size becomes the square input: the long side fills it, ``grey`` the rest. ``centred`` or in
    the top left corner; ``rounded``: the short side is rounded to whole pixels, else cut to them."""

    centred: bool
    rounded: bool
    grey: int = 114


ULTRALYTICS = Letterbox(centred=True, rounded=True)


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """One detector.

    ``licence`` is that of the weights, ``licence_note`` what it asks of who uses them. ``channels`` and ``divisor`` say
    what the network takes: pixels of 0 to 255 in this order, divided by it. ``input_size`` is the side of the square
    input in pixels; 0 where the file that is installed decides.
    """

    name: str
    title: str
    paper: str
    licence: str
    licence_note: str
    head: Head
    letterbox: Letterbox
    channels: Literal["RGB", "BGR"]
    divisor: float
    sources: tuple[UrlSource, ...] = ()
    input_size: int = 0

    @property
    def candidates(self) -> int:
        """N, the boxes that come of every image."""
        return sum((self.input_size // stride) ** 2 for stride in STRIDES)

    def sized(self, side: int) -> DetectorSpec:
        """The detector with an input of ``side`` pixels."""
        return replace(self, input_size=side)


def detector_graph(spec: DetectorSpec) -> GraphSpec:
    """The one graph of a detector whose ``input_size`` is known, all of its sizes fixed.

    ``image`` is the letterboxed image in RGB; ``boxes`` are (x0, y0, x1, y1) in its pixels, ``scores`` from 0 to 1.
    """
    side, count = spec.input_size, spec.candidates
    return GraphSpec(
        "detector",
        (TensorSpec("image", "uint8", (1, side, side, 3)),),
        (TensorSpec("boxes", "float32", (1, count, 4)), TensorSpec("scores", "float32", (1, count))),
        None,
        ({},),
    )


_YOLOX = Head(channels_first=False, decoded=False, objectness=True)
_YOLOV8 = Head(channels_first=True, decoded=True, objectness=False, coefficients=32)

DETECTORS: dict[str, DetectorSpec] = {
    spec.name: spec
    for spec in (
        DetectorSpec(
            name="yolox-nano",
            title="YOLOX-Nano",
            paper="arXiv 2107.08430",
            licence="Apache-2.0",
            licence_note="free to use and to pass on with its notices; trained on COCO's 80 classes",
            head=_YOLOX,
            letterbox=Letterbox(centred=False, rounded=False),
            channels="BGR",
            divisor=1.0,
            # The first is what our figures were measured with; the second is the authors' own export.
            sources=(
                UrlSource(
                    url="https://github.com/Kazuhito00/YOLOX-ONNX-TFLite-Sample/raw/"
                    "0f785c070ce8da070aeaeef46c0da7904ff7012e/model/yolox_nano.onnx",
                    sha256="695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14",
                    size=3_660_092,
                ),
                UrlSource(
                    url="https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano.onnx",
                    sha256="c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d",
                    size=3_659_407,
                ),
            ),
            input_size=416,
        ),
        DetectorSpec(
            name="yolov8",
            title="YOLOv8 or YOLOv8-seg, your own export",
            paper="none; docs.ultralytics.com",
            licence="AGPL-3.0",
            licence_note="unless you have another from Ultralytics; the AGPL covers what is served over a network, too",
            head=_YOLOV8,
            letterbox=ULTRALYTICS,
            channels="RGB",
            divisor=255.0,
        ),
    )
}


def get_detector(name: str) -> DetectorSpec:
    """The spec called ``name``. Raises :class:`NotFound` that lists the names there are."""
    try:
        return DETECTORS[name]
    except KeyError:
        raise NotFound(f"detector {name!r} is unknown; known: {', '.join(sorted(DETECTORS))}") from None
