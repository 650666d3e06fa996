"""Answers → proto messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.domain import Format, Rle
from samgate.scheduling.profile import DeviceProfile, OperatingPoint
from samgate.scheduling.request import Reason
from samgate.segevery.sampler import EverythingResult
from samgate.segevery.strategies import Strategy, inapplicable
from samgate.serving.everything import EverythingDone, EverythingEvent, EverythingProgress
from samgate.serving.models import Model
from samgate.serving.requests import AnsweredMask, EncodedMask, Trace
from samgate.serving.updates import EverythingFound
from samgate.variants.spec import VariantSpec

_REASONS = {
    Reason.NAMED: pb.REASON_NAMED,
    Reason.MOST_ACCURATE: pb.REASON_MOST_ACCURATE,
    Reason.DEADLINE: pb.REASON_DEADLINE,
    Reason.LOAD: pb.REASON_LOAD,
}


class Timed(Protocol):
    """A call: when it came and when its answer is due, on one clock, and the seconds since it came."""

    @property
    def started(self) -> float: ...

    @property
    def deadline(self) -> float: ...

    @property
    def elapsed_s(self) -> float: ...


def info_message(trace: Trace, call: Timed) -> pb.AnswerInfo:
    """How the answer was made, in milliseconds by stage, and why so."""
    stages = {f"{stage}_ms": seconds * 1e3 for stage, seconds in trace.stages_s.items()}
    return pb.AnswerInfo(
        variant=trace.variant,
        precision=trace.precision,
        engine=trace.engine,
        embedding_cached=trace.cached,
        handle=trace.handle,
        timings=pb.Timings(total_ms=call.elapsed_s * 1e3, **stages),
        decision=pb.Decision(
            reason=_REASONS[trace.reason],
            accuracy=trace.accuracy,
            predicted_ms=trace.predicted_s * 1e3,
            deadline_ms=(call.deadline - call.started) * 1e3,
            load_price=trace.price,
        ),
    )


def segment_response(
    results: list[list[AnsweredMask]], mask_format: Format, trace: Trace, call: Timed
) -> pb.SegmentResponse:
    """The answer to a Segment call."""
    width, height = trace.size
    return pb.SegmentResponse(
        results=[pb.PromptMasks(masks=[mask_message(mask, mask_format) for mask in masks]) for masks in results],
        width=width,
        height=height,
        info=info_message(trace, call),
    )


def mask_message(mask: AnsweredMask, mask_format: Format) -> pb.Mask:
    """One mask."""
    message = pb.Mask(
        bounding_box=box_message(mask.box) if mask.box is not None else None,
        area=mask.area,
        predicted_iou=mask.predicted_iou,
        stability_score=mask.stability_score,
        low_res_logits=mask.low_res.astype("<f4").tobytes() if mask.low_res is not None else b"",
    )
    if mask.data is not None:
        set_data(message, mask.data, mask_format)
    return message


def everything_response(event: EverythingEvent, mask_format: Format, call: Timed) -> pb.SegmentEverythingResponse:
    """One message of SegmentEverything's stream."""
    match event:
        case EverythingProgress():
            progress = pb.Progress(
                prompts_done=event.prompts_done, prompts_total=event.prompts_total, candidates=event.candidates
            )
            return pb.SegmentEverythingResponse(progress=progress)
        case EverythingFound():
            masks = pb.EverythingMasks(
                masks=[everything_message(*found, mask_format) for found in event.masks],
                retracted=event.retracted,
                width=event.size[1],
                height=event.size[0],
            )
            return pb.SegmentEverythingResponse(masks=masks)
        case EverythingDone(trace):
            width, height = trace.size
            summary = pb.EverythingSummary(
                mask_count=trace.masks,
                width=width,
                height=height,
                info=info_message(trace, call),
                complete=trace.complete,
                strategy=_strategy(Strategy(trace.strategy)),
                prompts_done=trace.prompts,
            )
            return pb.SegmentEverythingResponse(summary=summary)


def everything_message(
    number: int, result: EverythingResult, data: EncodedMask, mask_format: Format
) -> pb.EverythingMask:
    """One mask of SegmentEverything, whose id is ``number``, encoded as ``data``."""
    mask = pb.Mask(
        bounding_box=box_message(result.box) if result.box is not None else None,
        area=result.area,
        predicted_iou=result.predicted_iou,
        stability_score=result.stability_score,
    )
    set_data(mask, data, mask_format)
    x, y = result.point
    return pb.EverythingMask(
        mask=mask,
        point=pb.Point(x=x, y=y, label=pb.POINT_LABEL_FOREGROUND),
        crop_box=box_message(result.crop_box),
        id=number,
    )


def set_data(message: pb.Mask, data: EncodedMask, mask_format: Format) -> None:
    """Put ``data``, which is encoded as ``mask_format``, in its field."""
    if isinstance(data, Rle):
        message.rle.CopyFrom(pb.Rle(height=data.size[0], width=data.size[1], counts=data.counts))
    elif isinstance(data, tuple):
        message.polygons.SetInParent()
        message.polygons.polygons.extend(
            pb.Polygon(coordinates=polygon.points.ravel(), hole=polygon.hole) for polygon in data
        )
    elif mask_format is Format.PNG:
        message.png = data
    else:
        message.packed_bits = data


def box_message(box: tuple[float, float, float, float]) -> pb.Box:
    """(x0, y0, x1, y1)."""
    return pb.Box(x0=box[0], y0=box[1], x1=box[2], y1=box[3])


def variant_message(spec: VariantSpec, models: Iterable[Model], profile: DeviceProfile) -> pb.Variant:
    """What the server says of a variant that it knows."""
    served = [model for model in models if model.spec.name == spec.name]
    points = {point.name: point for point in profile.points}
    message = pb.Variant(
        name=spec.name,
        title=spec.title,
        served=bool(served),
        is_default=bool(served),
        licence=spec.licence,
        parameters=spec.parameters,
        input_size=spec.input_size,
        precision=served[0].engine.precision if served else "",
        engine=served[0].engine.name if served else "",
        install_command="" if served else f"samgate pull {spec.name}",
        operating_points=[_point_message(points[model.name]) for model in served],
        prompts=pb.PromptSupport(
            background_points=spec.prompts.background,
            mask_logits=spec.prompts.mask,
            max_points=spec.prompts.most_points or 0,
            text=spec.prompts.text,
        ),
        strategies=[_strategy(one) for one in Strategy if inapplicable(one, spec) is None],
    )
    if spec.accuracy.box_miou is not None:
        message.published_box_miou = spec.accuracy.box_miou / 100
    if spec.accuracy.point_miou is not None:
        message.published_point_miou = spec.accuracy.point_miou / 100
    return message


def _strategy(strategy: Strategy) -> pb.Strategy.ValueType:
    return pb.Strategy.Value(f"STRATEGY_{strategy.name}")


def _point_message(point: OperatingPoint) -> pb.OperatingPoint:
    return pb.OperatingPoint(
        name=point.name,
        box_miou=point.accuracy["box"],
        point_miou=point.accuracy["point"],
        encode_ms=point.encode(1) * 1e3,
        decode_ms=point.decode(1) * 1e3,
    )
