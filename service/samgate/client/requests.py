"""Requests from arguments, for the sync and the async client. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypedDict, TypeVar

from google.protobuf.message import Message

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.client.images import ImageLike, image_message
from samgate.domain import Format, Prompt, Selection
from samgate.errors import InvalidArgument

E = TypeVar("E", bound=StrEnum)
M = TypeVar("M", bound=Message)


class Priority(StrEnum):
    """Who goes first when not all can: interactive calls by deadline, then bulk calls by deadline."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class Strategy(StrEnum):
    """Which prompts find the masks of SegEvery: upstream's grid of points, TinySAM's two stages, a detector's boxes
    (MobileSAMv2), AoP-SAM's points, or as much of the grid as there is time for."""

    GRID = "grid"
    HIERARCHICAL = "hierarchical"
    OBJECT_AWARE = "object_aware"
    AOP = "aop"
    AUTO = "auto"


class GridOptions(TypedDict, total=False):
    """The parameters of SegEvery's grid, and the filters of all strategies that prompt with points; those left out have
    the server's defaults, which are upstream's."""

    points_per_side: int
    pred_iou_thresh: float
    stability_score_thresh: float
    stability_score_offset: float
    box_nms_thresh: float
    crop_n_layers: int
    crop_nms_thresh: float
    crop_overlap_ratio: float
    crop_n_points_downscale_factor: int
    min_mask_region_area: int
    max_masks: int


class EverythingOptions(GridOptions, total=False):
    """And those of the other strategies, for the one that is asked for; defaults are their papers'."""

    high_score_thresh: float
    coarse_factor: int
    covering_stages: int
    neighbours_per_point: int
    conf: float
    iou: float
    max_detections: int
    smoothing_sigma: float
    confidence_thresh: float
    spacing: int
    elimination_factor: float


@dataclass(frozen=True, slots=True)
class Choice:
    """Who may answer, and how soon it goes: the arguments that every call shares."""

    variant: str = ""
    min_accuracy: float = 0.0
    priority: Priority | str = Priority.INTERACTIVE


def segment_request(
    image: ImageLike,
    prompts: Sequence[Prompt],
    selection: Selection | str,
    mask_format: Format | str,
    return_logits: bool,
    choice: Choice,
) -> pb.SegmentRequest:
    """Raises :class:`~samgate.errors.InvalidArgument` for an unknown selection, format or priority or an unusable
    image."""
    return pb.SegmentRequest(
        image=image_message(image),
        prompts=[_prompt(prompt) for prompt in prompts],
        selection=pb.MaskSelection.Value(f"MASK_SELECTION_{_member(Selection, 'selection', selection).name}"),
        format=_format(mask_format),
        return_logits=return_logits,
        variant=choice.variant,
        min_accuracy=choice.min_accuracy,
        priority=_priority(choice.priority),
    )


def everything_request(
    image: ImageLike,
    options: EverythingOptions,
    mask_format: Format | str,
    choice: Choice,
    strategy: Strategy | str = Strategy.GRID,
    anytime: bool = False,
) -> pb.SegmentEverythingRequest:
    """Raises :class:`~samgate.errors.InvalidArgument` for an unknown strategy or format, an unusable image or a
    parameter that doesn't exist or has the wrong type or sign."""
    given = dict(options)
    request = pb.SegmentEverythingRequest(
        image=image_message(image),
        hierarchical=_parameters(pb.HierarchicalParameters, "hierarchical", given),
        object_aware=_parameters(pb.ObjectAwareParameters, "object_aware", given),
        aop=_parameters(pb.AopParameters, "aop", given),
        format=_format(mask_format),
        variant=choice.variant,
        min_accuracy=choice.min_accuracy,
        strategy=pb.Strategy.Value(f"STRATEGY_{_member(Strategy, 'strategy', strategy).name}"),
        anytime=anytime,
    )
    # What is left is the grid's, or wrong.
    request.grid.CopyFrom(_made(pb.GridParameters, "grid", given))
    return request


def embed_request(image: ImageLike, choice: Choice) -> pb.EmbedRequest:
    """Raises :class:`~samgate.errors.InvalidArgument` for an unknown priority or an unusable image."""
    return pb.EmbedRequest(
        image=image_message(image),
        variant=choice.variant,
        min_accuracy=choice.min_accuracy,
        priority=_priority(choice.priority),
    )


def _parameters(kind: type[M], name: str, given: dict[str, Any]) -> M | None:
    """Those of ``given`` that are fields of ``kind``, which are taken out; None without any."""
    own = {field: given.pop(field) for field in list(given) if field in kind.DESCRIPTOR.fields_by_name}
    return _made(kind, name, own) if own else None


def _made(kind: type[M], name: str, given: dict[str, Any]) -> M:
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(name, f"{given} is not usable: {error}") from error


def _member(enum: type[E], name: str, value: E | str) -> E:
    try:
        return enum(value)
    except ValueError:
        raise InvalidArgument(name, f"must be one of {', '.join(enum)}, is {value!r}") from None


def _format(mask_format: Format | str) -> pb.MaskFormat.ValueType:
    return pb.MaskFormat.Value(f"MASK_FORMAT_{_member(Format, 'format', mask_format).name}")


def _priority(priority: Priority | str) -> pb.Priority.ValueType:
    return pb.Priority.Value(f"PRIORITY_{_member(Priority, 'priority', priority).name}")


def _prompt(prompt: Prompt) -> pb.Prompt:
    message = pb.Prompt(
        points=[
            pb.Point(x=x, y=y, label=pb.POINT_LABEL_FOREGROUND if label else pb.POINT_LABEL_BACKGROUND)
            for (x, y), label in zip(prompt.points.tolist(), prompt.labels.tolist(), strict=True)
        ]
    )
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box.tolist()
        message.box.CopyFrom(pb.Box(x0=x0, y0=y0, x1=x1, y1=y1))
    if prompt.mask_logits is not None:
        message.mask_logits = prompt.mask_logits.astype("<f4").tobytes()
    message.text = prompt.text
    return message
