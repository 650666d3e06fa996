"""Drop-in for ``segment_anything.SamAutomaticMaskGenerator`` that runs on a samgate server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from samgate.client.images import ImageLike
from samgate.client.requests import GridOptions
from samgate.client.results import EverythingMask
from samgate.client.sync import Client
from samgate.domain import BoolArray, Format, Rle
from samgate.errors import InvalidArgument, SamgateError

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


class SamAutomaticMaskGenerator:
    """Upstream's interface, defaults and records, best predicted first: without crops that is upstream's order, too.

    Args:
        model: a :class:`~samgate.client.Client`, or the target of a server to make one for.
        points_per_batch: accepted and unused: the server forms its batches itself.
        point_grids: not offered; raises :class:`~samgate.errors.InvalidArgument` if given.
        output_mode: ``binary_mask``, ``uncompressed_rle`` or ``coco_rle``.
        variant: which one to use; empty lets the server choose.
        timeout_s: deadline of :meth:`generate`.

    All others are upstream's.
    """

    def __init__(
        self,
        model: Client | str,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,  # noqa: ARG002 - upstream's signature
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[np.ndarray] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
        *,
        variant: str = "",
        timeout_s: float = 600.0,
    ) -> None:
        if point_grids is not None or points_per_side is None:
            raise InvalidArgument("point_grids", "the service doesn't take grids of points: give points_per_side")
        if output_mode not in OUTPUT_MODES:
            raise InvalidArgument("output_mode", f"must be one of {', '.join(OUTPUT_MODES)}, is {output_mode!r}")
        self.model = Client(model) if isinstance(model, str) else model
        self.output_mode = output_mode
        self.variant, self.timeout_s = variant, timeout_s
        self.grid: GridOptions = {
            "points_per_side": points_per_side,
            "pred_iou_thresh": pred_iou_thresh,
            "stability_score_thresh": stability_score_thresh,
            "stability_score_offset": stability_score_offset,
            "box_nms_thresh": box_nms_thresh,
            "crop_n_layers": crop_n_layers,
            "crop_nms_thresh": crop_nms_thresh,
            "crop_overlap_ratio": crop_overlap_ratio,
            "crop_n_points_downscale_factor": crop_n_points_downscale_factor,
            "min_mask_region_area": min_mask_region_area,
        }

    def generate(self, image: ImageLike) -> list[dict[str, Any]]:
        """One :func:`record` for each mask of ``image`` (upstream: uint8 ``[H, W, 3]`` RGB; here whatever
        :meth:`samgate.client.Client.everything` takes, and it raises the same)."""
        answer = self.model.everything(
            image, format=Format.RLE, variant=self.variant, timeout_s=self.timeout_s, **self.grid
        )
        return [record(found, self.output_mode) for found in answer.masks]


def record(found: EverythingMask, output_mode: str) -> dict[str, Any]:
    """A mask that was asked for as RLE, as upstream describes it.

    ``bbox`` and ``crop_box`` are XYWH of ints. Upstream takes a mask's width and height between its first and last
    pixels, so that they are one less than the pixels that the mask spans; an empty mask has [0, 0, 0, 0].
    """
    rle = found.mask.rle
    if rle is None:
        raise SamgateError(f"records are made of RLE, this mask is {found.mask.format.value!r}")
    x0, y0, x1, y1 = found.mask.box or (0, 0, 1, 1)
    left, top, right, bottom = found.crop_box
    segmentation: BoolArray | dict[str, Any]
    match output_mode:
        case "binary_mask":
            segmentation = found.mask.to_numpy()
        case "coco_rle":
            segmentation = {"size": list(rle.size), "counts": rle.counts.decode("ascii")}
        case _:
            segmentation = {"size": list(rle.size), "counts": run_lengths(rle)}
    return {
        "segmentation": segmentation,
        "area": found.mask.area,
        "bbox": [x0, y0, x1 - x0 - 1, y1 - y0 - 1],
        "predicted_iou": found.mask.predicted_iou,
        "point_coords": [list(found.point)],
        "stability_score": found.mask.stability_score,
        "crop_box": [left, top, right - left, bottom - top],
    }


def run_lengths(rle: Rle) -> list[int]:
    """COCO's compressed counts → the lengths of the runs, column by column, of 0s and 1s in turn (0s first).

    Each count is a little-endian base-32 number of characters 48 … 111, whose bit 32 says that another digit follows
    and whose last digit's bit 16 is the sign; from the fourth count on, what is stored is the difference to the count
    two before (pycocotools' ``rleFrString``).
    """
    counts: list[int] = []
    value = shift = 0
    for character in rle.counts:
        digit = character - 48
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts
