"""Results from answers, for the sync and the async client. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.client import results
from samgate.client.prompts import LOW_RES_SIDE
from samgate.domain import FloatArray, Format, Polygon, Rle
from samgate.errors import SamgateError


def read_segmentation(answer: pb.SegmentResponse, asked: Format) -> results.Segmentation:
    """The answer to a request for masks in the format ``asked``."""
    size = (answer.height, answer.width)
    return results.Segmentation(
        results=tuple(tuple(_mask(mask, size, asked) for mask in result.masks) for result in answer.results),
        size=size,
        info=_info(answer.info),
    )


def read_embedded(answer: pb.EmbedResponse) -> results.EmbeddedImage:
    """The answer to an Embed call."""
    return results.EmbeddedImage(
        handle=results.Handle(answer.handle),
        size=(answer.height, answer.width),
        expires_in_s=answer.expires_in_s,
        info=_info(answer.info),
    )


def read_variants(answer: pb.ListVariantsResponse) -> list[results.VariantInfo]:
    """The answer to a ListVariants call."""
    return [
        results.VariantInfo(
            name=variant.name,
            title=variant.title,
            served=variant.served,
            is_default=variant.is_default,
            licence=variant.licence,
            parameters=variant.parameters,
            input_size=variant.input_size,
            precision=variant.precision,
            engine=variant.engine,
            published_box_miou=variant.published_box_miou if variant.HasField("published_box_miou") else None,
            published_point_miou=variant.published_point_miou if variant.HasField("published_point_miou") else None,
            install_command=variant.install_command,
            operating_points=tuple(
                results.OperatingPointInfo(
                    point.name, point.box_miou, point.point_miou, point.encode_ms, point.decode_ms
                )
                for point in variant.operating_points
            ),
            background_points=variant.prompts.background_points,
            mask_logits=variant.prompts.mask_logits,
            max_points=variant.prompts.max_points or None,
            text=variant.prompts.text,
            strategies=tuple(
                pb.Strategy.Name(strategy).removeprefix("STRATEGY_").lower() for strategy in variant.strategies
            ),
        )
        for variant in answer.variants
    ]


def read_everything(answer: pb.SegmentEverythingResponse, asked: Format) -> list[results.EverythingEvent]:
    """What one message of a SegmentEverything call, for masks in the format ``asked``, tells: progress, what is
    retracted and then each new mask, or the summary."""
    match answer.WhichOneof("event"):
        case "progress":
            done = answer.progress
            return [results.Progress(done.prompts_done, done.prompts_total, done.candidates)]
        case "masks":
            change = answer.masks
            retracted = [results.Retraction(tuple(change.retracted))] if change.retracted else []
            return [*retracted, *(_found(found, (change.height, change.width), asked) for found in change.masks)]
        case "summary":
            summary = answer.summary
            return [
                results.EverythingSummary(
                    mask_count=summary.mask_count,
                    size=(summary.height, summary.width),
                    info=_info(summary.info),
                    complete=summary.complete,
                    strategy=pb.Strategy.Name(summary.strategy).removeprefix("STRATEGY_").lower(),
                    prompts_done=summary.prompts_done,
                )
            ]
    return []


OnProgress = Callable[[results.Progress], None]
OnMasks = Callable[[tuple[results.EverythingMask, ...]], None]


class EverythingCollector:
    """Adds up the messages of a call to an :class:`~samgate.client.results.Everything`.

    ``on_progress`` is told of progress, ``on_masks``, whenever there were new masks, all that there are by then, best
    predicted first.
    """

    def __init__(self, on_progress: OnProgress | None = None, on_masks: OnMasks | None = None) -> None:
        self._on_progress, self._on_masks = on_progress, on_masks
        self._masks: dict[int, results.EverythingMask] = {}
        self._summary: results.EverythingSummary | None = None

    @property
    def masks(self) -> tuple[results.EverythingMask, ...]:
        """Those so far, best predicted first."""
        return tuple(sorted(self._masks.values(), key=lambda found: (-found.mask.predicted_iou, found.id)))

    def add_message(self, events: Sequence[results.EverythingEvent]) -> None:
        """Takes note of what one message told: its masks are shown together."""
        for event in events:
            self.add(event)
        changed = any(isinstance(event, results.EverythingMask | results.Retraction) for event in events)
        if changed and self._on_masks is not None:
            self._on_masks(self.masks)

    def add(self, event: results.EverythingEvent) -> None:
        """Takes note of one event."""
        match event:
            case results.Progress():
                if self._on_progress is not None:
                    self._on_progress(event)
            case results.Retraction():
                for number in event.ids:
                    self._masks.pop(number, None)
            case results.EverythingMask():
                self._masks[event.id] = event
            case results.EverythingSummary():
                self._summary = event

    def everything(self) -> results.Everything:
        """The result. Raises :class:`~samgate.errors.SamgateError` if the stream ended before its summary."""
        end = self._summary
        if end is None:
            raise SamgateError("the server ended the answer without a summary")
        return results.Everything(self.masks, end.size, end.info, end.complete, end.strategy, end.prompts_done)


def _found(found: pb.EverythingMask, size: tuple[int, int], asked: Format) -> results.EverythingMask:
    return results.EverythingMask(
        mask=_mask(found.mask, size, asked),
        point=(found.point.x, found.point.y),
        crop_box=_box(found.crop_box),
        id=found.id,
    )


def _mask(mask: pb.Mask, size: tuple[int, int], asked: Format) -> results.Mask:
    encoded: Rle | bytes | tuple[Polygon, ...] | None = None
    match mask.WhichOneof("data"):
        case "rle":
            encoded = Rle((mask.rle.height, mask.rle.width), mask.rle.counts)
        case "png":
            encoded = mask.png
        case "packed_bits":
            encoded = mask.packed_bits
        case "polygons":
            encoded = tuple(
                Polygon(np.array(polygon.coordinates, np.float32).reshape(-1, 2), polygon.hole)
                for polygon in mask.polygons.polygons
            )
    return results.Mask(
        size=size,
        format=asked,
        encoded=encoded,
        box=_box(mask.bounding_box) if mask.HasField("bounding_box") else None,
        area=mask.area,
        predicted_iou=mask.predicted_iou,
        stability_score=mask.stability_score,
        low_res_logits=_logits(mask.low_res_logits) if mask.low_res_logits else None,
    )


def _logits(data: bytes) -> FloatArray:
    if len(data) != 4 * LOW_RES_SIDE**2:
        raise SamgateError(f"the server sent logits of {len(data)} bytes instead of {4 * LOW_RES_SIDE**2}")
    return np.frombuffer(data, "<f4").reshape(LOW_RES_SIDE, LOW_RES_SIDE).astype(np.float32)


def _box(box: pb.Box) -> tuple[int, int, int, int]:
    return (int(box.x0), int(box.y0), int(box.x1), int(box.y1))


def _info(info: pb.AnswerInfo) -> results.AnswerInfo:
    spent = info.timings
    return results.AnswerInfo(
        variant=info.variant,
        precision=info.precision,
        engine=info.engine,
        embedding_cached=info.embedding_cached,
        handle=results.Handle(info.handle) if info.handle else None,
        timings=results.Timings(
            imaging_ms=spent.imaging_ms,
            queue_ms=spent.queue_ms,
            encode_ms=spent.encode_ms,
            decode_ms=spent.decode_ms,
            masks_ms=spent.masks_ms,
            total_ms=spent.total_ms,
            detect_ms=spent.detect_ms,
            text_ms=spent.text_ms,
        ),
        decision=results.Decision(
            reason=pb.Reason.Name(info.decision.reason).removeprefix("REASON_").lower(),
            accuracy=info.decision.accuracy,
            predicted_ms=info.decision.predicted_ms,
            deadline_ms=info.decision.deadline_ms,
            load_price=info.decision.load_price,
        ),
    )
