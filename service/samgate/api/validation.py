"""Proto requests → validated calls. Everything a client can get wrong without the image being looked at is found here.

Raises :class:`~samgate.errors.InvalidArgument` naming the field as the proto spells it, the value and the limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.config import Limits
from samgate.domain import FloatArray, Format, Prompt, Selection
from samgate.errors import InvalidArgument, NotFound
from samgate.scheduling.queue import Priority
from samgate.segevery.detections import DetectorParameters
from samgate.segevery.parameters import AopParameters, GridParameters, HierarchicalParameters
from samgate.segevery.strategies import STRATEGIES, Strategy, StrategyParameters
from samgate.serving.everything import EverythingCall
from samgate.serving.requests import EncodedImage, Handle, Image, RawImage, SegmentCall, Wish
from samgate.variants import get_variant

V = TypeVar("V")

MASK_SIDE = 256
MAX_TEXT = 1000
"""Characters of a prompt in words."""
_MAX_NAME = 128

_SELECTIONS: dict[int, Selection] = {
    pb.MASK_SELECTION_UNSPECIFIED: Selection.SINGLE,
    pb.MASK_SELECTION_SINGLE: Selection.SINGLE,
    pb.MASK_SELECTION_MULTI: Selection.MULTI,
    pb.MASK_SELECTION_BEST: Selection.BEST,
}
_FORMATS: dict[int, Format] = {
    pb.MASK_FORMAT_UNSPECIFIED: Format.RLE,
    pb.MASK_FORMAT_RLE: Format.RLE,
    pb.MASK_FORMAT_PNG: Format.PNG,
    pb.MASK_FORMAT_POLYGONS: Format.POLYGONS,
    pb.MASK_FORMAT_PACKED_BITS: Format.PACKED_BITS,
    pb.MASK_FORMAT_LOW_RES_LOGITS: Format.LOW_RES_LOGITS,
}
_PRIORITIES: dict[int, Priority] = {
    pb.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    pb.PRIORITY_BULK: Priority.BULK,
}
_STRATEGIES: dict[int, Strategy] = {
    pb.STRATEGY_UNSPECIFIED: Strategy.GRID,
    pb.STRATEGY_GRID: Strategy.GRID,
    pb.STRATEGY_HIERARCHICAL: Strategy.HIERARCHICAL,
    pb.STRATEGY_OBJECT_AWARE: Strategy.OBJECT_AWARE,
    pb.STRATEGY_AOP: Strategy.AOP,
    pb.STRATEGY_AUTO: Strategy.AUTO,
}
_USERS: dict[str, frozenset[Strategy]] = {
    "grid": frozenset(Strategy) - {Strategy.OBJECT_AWARE},
    "hierarchical": frozenset({Strategy.HIERARCHICAL}),
    "object_aware": frozenset({Strategy.OBJECT_AWARE, Strategy.AUTO}),
    "aop": frozenset({Strategy.AOP}),
}
"""The strategies that parameters are for."""
_LABELS: dict[int, int] = {pb.POINT_LABEL_UNSPECIFIED: 1, pb.POINT_LABEL_FOREGROUND: 1, pb.POINT_LABEL_BACKGROUND: 0}


class _Enum(Protocol):
    def keys(self) -> Sequence[str]: ...


class Asked(Protocol):
    """When a call came, when its answer is due (on :func:`time.monotonic`'s clock), who made it, and the class that its
    work has at best."""

    @property
    def started(self) -> float: ...

    @property
    def deadline(self) -> float: ...

    @property
    def client(self) -> str: ...

    @property
    def at_best(self) -> Priority: ...


def segment_call(request: pb.SegmentRequest, limits: Limits, asked: Asked) -> SegmentCall:
    """A validated call."""
    return SegmentCall(
        image=image_of(request.image),
        prompts=_prompts(request.prompts, limits),
        selection=_known("selection", request.selection, _SELECTIONS, pb.MaskSelection),
        format=_format(request.format),
        return_logits=request.return_logits,
        wish=wish_of(request, asked),
    )


def everything_call(request: pb.SegmentEverythingRequest, limits: Limits, asked: Asked) -> EverythingCall:
    """A validated call."""
    strategy = _known("strategy", request.strategy, _STRATEGIES, pb.Strategy)
    given = {name: _given(request, name, strategy) for name in _USERS}
    grid = GridParameters(**given["grid"])
    count = grid.prompt_count()
    if count > limits.max_everything_prompts:
        raise InvalidArgument(
            "grid",
            f"asks for {count} point prompts over all crops; the limit is {limits.max_everything_prompts}",
        )
    image = image_of(request.image)
    if isinstance(image, Handle) and grid.crop_n_layers > 0:
        raise InvalidArgument("image.handle", "has no pixels to crop; send the image, or grid.crop_n_layers = 0")
    mask_format = _format(request.format)
    if mask_format is Format.LOW_RES_LOGITS:
        raise InvalidArgument("format", "LOW_RES_LOGITS is not for SegmentEverything")
    parameters = StrategyParameters(
        grid,
        HierarchicalParameters(grid, **given["hierarchical"]),
        DetectorParameters(**given["object_aware"]),
        AopParameters(grid, **given["aop"]),
    )
    anytime = request.anytime or STRATEGIES[strategy].always_anytime
    return EverythingCall(image, strategy, parameters, anytime, mask_format, wish_of(request, asked))


def _given(request: pb.SegmentEverythingRequest, name: str, strategy: Strategy) -> dict[str, Any]:
    """The parameters of the message ``name`` that are set, which only some strategies take."""
    given = {item.name: value for item, value in getattr(request, name).ListFields()}
    if given and strategy not in _USERS[name]:
        raise InvalidArgument(f"{name}.{next(iter(given))}", f"is not for strategy {strategy.name}")
    return given


def wish_of(request: pb.SegmentRequest | pb.EmbedRequest | pb.SegmentEverythingRequest, asked: Asked) -> Wish:
    """What the request says of variant, accuracy and priority."""
    accuracy = request.min_accuracy
    if not 0 <= accuracy <= 1:
        raise InvalidArgument("min_accuracy", f"must be an mIoU from 0 to 1, is {accuracy:g}")
    priority = Priority.BULK
    if not isinstance(request, pb.SegmentEverythingRequest):
        priority = _known("priority", request.priority, _PRIORITIES, pb.Priority)
    priority = max(priority, asked.at_best)
    return Wish(asked.started, asked.deadline, variant_of(request.variant), accuracy, priority, asked.client)


def image_of(image: pb.Image) -> Image:
    """The image's source, of which exactly one must be set."""
    source = image.WhichOneof("source")
    if source == "encoded":
        return EncodedImage(image.encoded)
    if source == "raw":
        return RawImage(image.raw.width, image.raw.height, image.raw.rgb)
    if source == "handle":
        if not 0 < len(image.handle) <= _MAX_NAME:
            raise InvalidArgument("image.handle", f"must have 1 to {_MAX_NAME} characters, has {len(image.handle)}")
        return Handle(image.handle)
    raise InvalidArgument("image", "is empty: set encoded, raw or handle")


def variant_of(name: str) -> str:
    """``name``, a variant's or ``variant:precision``, when samgate knows it or it is empty. Raises NotFound."""
    if len(name) > _MAX_NAME:
        raise InvalidArgument("variant", f"must have at most {_MAX_NAME} characters, has {len(name)}")
    if name:
        variant, colon, precision = name.partition(":")
        plans = get_variant(variant).precisions
        if colon and precision not in plans:
            raise NotFound(f"variant {variant!r} has no precision {precision!r}; it has {', '.join(plans)}")
    return name


def _format(value: int) -> Format:
    return _known("format", value, _FORMATS, pb.MaskFormat)


def _known(field: str, value: int, table: dict[int, V], enum: _Enum) -> V:
    if value not in table:
        raise InvalidArgument(field, f"{value} is unknown; known: {', '.join(enum.keys())}")
    return table[value]


def _prompts(prompts: Sequence[pb.Prompt], limits: Limits) -> tuple[Prompt, ...]:
    if not prompts:
        raise InvalidArgument("prompts", "is empty: at least one is needed")
    if len(prompts) > limits.max_prompts:
        raise InvalidArgument("prompts", f"has {len(prompts)}; the limit is {limits.max_prompts}")
    return tuple(_prompt(prompt, f"prompts[{index}]", limits) for index, prompt in enumerate(prompts))


def _prompt(prompt: pb.Prompt, field: str, limits: Limits) -> Prompt:
    given = [item.name for item, _ in prompt.ListFields()]
    if not given:
        raise InvalidArgument(field, "is empty: it needs points, a box, mask_logits or a text")
    if prompt.text:
        _check_text(prompt.text, f"{field}.text", [name for name in given if name != "text"])
    if len(prompt.points) > limits.max_points:
        raise InvalidArgument(f"{field}.points", f"has {len(prompt.points)}; the limit is {limits.max_points}")
    labels = []
    for index, point in enumerate(prompt.points):
        where = f"{field}.points[{index}]"
        _finite(f"{where}.x", point.x)
        _finite(f"{where}.y", point.y)
        labels.append(_known(f"{where}.label", point.label, _LABELS, pb.PointLabel))
    return Prompt(
        points=np.array([(point.x, point.y) for point in prompt.points], np.float32).reshape(-1, 2),
        labels=np.array(labels, np.int32),
        box=_box(prompt.box, f"{field}.box") if prompt.HasField("box") else None,
        mask_logits=_mask_logits(prompt.mask_logits, f"{field}.mask_logits") if prompt.mask_logits else None,
        text=prompt.text,
    )


def _check_text(text: str, field: str, others: Sequence[str]) -> None:
    if others:
        raise InvalidArgument(field, f"stands alone: {' and '.join(others)} can't be in the same prompt")
    if len(text) > MAX_TEXT:
        raise InvalidArgument(field, f"has {len(text)} characters; the limit is {MAX_TEXT}")
    if not text.strip():
        raise InvalidArgument(field, f"is {text!r}: it needs words")


def _box(box: pb.Box, field: str) -> FloatArray:
    corners = (box.x0, box.y0, box.x1, box.y1)
    for name, value in zip(("x0", "y0", "x1", "y1"), corners, strict=True):
        _finite(f"{field}.{name}", value)
    if box.x0 >= box.x1 or box.y0 >= box.y1:
        shown = ", ".join(f"{value:g}" for value in corners)
        raise InvalidArgument(field, f"({shown}) is empty or inverted: x0 < x1 and y0 < y1 are needed")
    return np.array(corners, np.float32)


def _mask_logits(data: bytes, field: str) -> FloatArray:
    expected = MASK_SIDE * MASK_SIDE * 4
    if len(data) != expected:
        raise InvalidArgument(
            field, f"has {len(data)} bytes; {MASK_SIDE} × {MASK_SIDE} little-endian float32 are {expected}"
        )
    logits = np.frombuffer(data, "<f4").astype(np.float32).reshape(MASK_SIDE, MASK_SIDE)
    if not np.isfinite(logits).all():
        raise InvalidArgument(field, "has values that are not finite")
    return logits


def _finite(field: str, value: float) -> None:
    if not math.isfinite(value):
        raise InvalidArgument(field, f"is {value}; it must be finite")
