"""Decoder output → the masks of an answer. Pure; runs on the imaging threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from samgate.domain import FloatArray, Format, Frame, Prompt
from samgate.errors import InvalidArgument, Overloaded
from samgate.imaging.formats import encode as encode_mask
from samgate.imaging.masks import finish
from samgate.serving.prompting import select
from samgate.serving.requests import AnsweredMask, EncodedMask, SegmentCall
from samgate.variants.spec import VariantSpec


class AnswerSize:
    """Counts the bytes of an answer, so that one that can't be sent isn't made in full."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0

    def add(self, mask: AnsweredMask) -> None:
        """Count ``mask``. Raises Overloaded above the limit."""
        self._bytes += 64 + encoded_bytes(mask.data) + (mask.low_res.nbytes if mask.low_res is not None else 0)
        if self._bytes > self._limit:
            raise Overloaded(
                f"the answer would be larger than {self._limit} bytes: send fewer prompts or ask for another format"
            )


def check_prompts_inside(prompts: Sequence[Prompt], size: tuple[int, int]) -> None:
    """Raises InvalidArgument for a coordinate outside of the image of ``size`` (width, height)."""
    width, height = size
    for index, prompt in enumerate(prompts):
        for place, (x, y) in enumerate(prompt.points.tolist()):
            if not (0 <= x <= width and 0 <= y <= height):
                raise InvalidArgument(
                    f"prompts[{index}].points[{place}]", f"({x:g}, {y:g}) is outside of the {width}×{height} image"
                )
        if prompt.box is not None:
            x0, y0, x1, y1 = prompt.box.tolist()
            if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
                raise InvalidArgument(
                    f"prompts[{index}].box",
                    f"({x0:g}, {y0:g}, {x1:g}, {y1:g}) is not inside of the {width}×{height} image",
                )


def answer_prompt(
    low_res: FloatArray, ious: FloatArray, frame: Frame, call: SegmentCall, spec: VariantSpec, answer: AnswerSize
) -> list[AnsweredMask]:
    """The masks of one prompt: ``low_res`` float32 ``[M, 256, 256]``, ``ious`` ``[M]``. Raises Overloaded."""
    masks = []
    for token in select(low_res, ious, call.selection, spec):
        finished = finish(low_res[token], frame, spec.mask_threshold)
        wants_logits = call.return_logits or call.format is Format.LOW_RES_LOGITS
        data = None if call.format is Format.LOW_RES_LOGITS else encode_mask(finished.mask, call.format)
        mask = AnsweredMask(
            data=data,
            box=finished.box,
            area=finished.area,
            stability_score=finished.stability_score,
            predicted_iou=float(ious[token]),
            low_res=_handed_out(low_res[token], spec) if wants_logits else None,
        )
        answer.add(mask)
        masks.append(mask)
    return masks


def _handed_out(logits: FloatArray, spec: VariantSpec) -> FloatArray:
    """A copy of ``logits``, clamped as upstream does."""
    limit = spec.logit_limit
    return logits.copy() if limit is None else np.clip(logits, -limit, limit)


def encoded_bytes(data: EncodedMask | None) -> int:
    """About as many bytes as ``data`` takes on the wire."""
    if data is None:
        return 0
    if isinstance(data, bytes):
        return len(data)
    if isinstance(data, tuple):
        return sum(8 + polygon.points.size * 4 for polygon in data)
    return len(data.counts)
