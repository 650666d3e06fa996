"""FastSAM (Zhao et al., 2023): YOLOv8-seg finds everything in an image, prompts choose among what is there.

The network is :mod:`samgate.variants.nets.yolov8`. What upstream does around it in Python is in the graphs here:
suppression of duplicates and the rule for the whole image in the encoder's, the choice by box or points in the
decoder's. Masks are chosen by their low-res logits, where upstream has them at the image's size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.detections import BLOCK, MOST, NOTHING, PROTOTYPES, ROW, STEEPEST
from samgate.variants.detectors import STRIDES
from samgate.variants.nets.yolov8 import YoloScale, YoloV8
from samgate.variants.spec import GraphName, VariantSpec

CONFIDENCE, DUPLICATE = 0.4, 0.9
"""What upstream's ``Inference.py`` asks of detections, and the IoU from which one is another's duplicate."""
CANDIDATES = 2048
"""The most confident, of which duplicates are dropped. Upstream looks at 30,000, for no more than 300 detections."""
_ROUNDS = 16
"""Of :meth:`Distinct._distinct`, as many as there may be boxes in a chain of which each would drop the next."""
_SNAP = 20
"""Pixels from the input's edge within which a box's side is taken to be on it."""
_WHOLE = 0.9
"""IoU with the whole input above which a box is the whole."""
_UNITED = 32
"""Detections that a prompt of points is made of, a power of two: of those that hold one of them the largest."""
_FAR = 1000.0


class Distinct(nn.Module):
    """Candidates → the table of detections."""

    def __init__(self, size: int, low_res: int) -> None:
        super().__init__()
        self.size, self.low_res = size, low_res
        self.count = min(CANDIDATES, sum((size // stride) ** 2 for stride in STRIDES))
        self.register_buffer("ranks", torch.arange(self.count, 0, -1, dtype=torch.float32), persistent=False)
        self.ranks: Tensor

    def forward(self, candidates: Tensor, valid: Tensor) -> Tensor:
        """
        Args:
            candidates: ``[N, 4 + 1 + prototypes, C]``: centre and size in pixels of the input, score, coefficients.
            valid: int32 ``[N, 2]``: (height, width) of the image in the middle of the input; boxes end there.

        Returns:
            ``[N, MOST, ROW]``, see :mod:`samgate.variants.detections`.
        """
        size = float(self.size)
        scores, order = candidates[:, 4].topk(self.count)
        candidates = _taken(candidates, order)
        keep = self._distinct(_corners(candidates[:, :4]), (scores > CONFIDENCE).to(torch.float32))
        kept, places = (keep * self.ranks).topk(MOST)
        there = (kept > 0).to(torch.float32).unsqueeze(2)
        rows = _taken(candidates, places).transpose(1, 2)
        x0, y0, x1, y1 = _corners(rows[..., :4].transpose(1, 2)).unbind(1)
        low = [torch.where(side < _SNAP, 0.0, side) for side in (x0, y0)]
        high = [torch.where(side > size - _SNAP, size, side) for side in (x1, y1)]
        across, down = (
            (last.clamp(max=size) - first.clamp(min=0)).clamp(min=0) for first, last in zip(low, high, strict=True)
        )
        area = (high[0] - low[0]) * (high[1] - low[1])
        whole = across * down > _WHOLE * (size * size + area - across * down)
        sides = [
            self._cut(torch.where(whole, instead, side), valid[:, axis : axis + 1].to(torch.float32))
            for ends, instead in ((low, 0.0), (high, size))
            for axis, side in zip((1, 0), ends, strict=True)
        ]
        return torch.cat([torch.stack(sides, 2), rows[..., 4:]], 2) * there

    def _cut(self, sides: Tensor, length: Tensor) -> Tensor:
        """``sides`` ``[N, c]`` of boxes, in pixels, ended where the image ends, which has ``length`` ``[N, 1]`` pixels;
        in parts of the input as masks have them: see :meth:`samgate.domain.Frame.cut`."""
        margin = ((self.size - length) / 2).floor()
        pad = (self.size - length) * (self.low_res / self.size / 2)
        start, stop = pad.floor(), (self.low_res - pad).floor()
        inside = (torch.minimum(torch.maximum(sides, margin), margin + length) - margin) / length
        return (start + inside * (stop - start).clamp(min=1)) / self.low_res

    def _distinct(self, boxes: Tensor, live: Tensor) -> Tensor:
        """Which of ``live`` ``[N, C]`` boxes ``[N, 4, C]``, the best first, are no better one's duplicates: 0 or 1.

        What torchvision's greedy ``nms`` keeps, found by all boxes at once: a box stays if no box that stays drops it.
        After as many rounds as the longest chain has boxes nothing changes any more (Cluster-NMS, arXiv 2005.03572).
        """
        x0, y0, x1, y1 = boxes.unbind(1)
        across, down = (
            (
                torch.minimum(last.unsqueeze(2), last.unsqueeze(1))
                - torch.maximum(first.unsqueeze(2), first.unsqueeze(1))
            )
            for first, last in ((x0, x1), (y0, y1))
        )
        inner, area = across.clamp(min=0) * down.clamp(min=0), (x1 - x0) * (y1 - y0)
        alike = inner > DUPLICATE * (area.unsqueeze(2) + area.unsqueeze(1) - inner)
        drops = (alike & (inner > 0)).to(torch.float32) * (self.ranks.unsqueeze(1) > self.ranks).to(torch.float32)
        keep = live
        for _ in range(_ROUNDS):
            keep = live * (keep.unsqueeze(1) @ drops < 0.5).to(torch.float32).reshape(-1, self.count)
        return keep


class FastSamEncoderGraph(nn.Module):
    """Pixels → prototypes and detections."""

    def __init__(self, network: YoloV8, spec: VariantSpec) -> None:
        super().__init__()
        self.network = network
        self.detections = Distinct(spec.input_size, spec.low_res_size)
        self.shape = spec.embedding_shape

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """``image`` uint8 ``[N, S, S, 3]`` RGB, grey around it, ``valid`` as :meth:`Distinct.forward` → ``[N, C, H,
        H]``, see :mod:`samgate.variants.detections`."""
        x = image.to(torch.float32).permute(0, 3, 1, 2) / 255.0
        candidates, prototypes = self.network(x)
        channels, rows, columns = self.shape
        more = channels - PROTOTYPES * BLOCK**2
        table = self.detections(candidates, valid).flatten(1)
        table = F.pad(table, (0, more * rows * columns - MOST * ROW)).reshape(-1, more, rows, columns)
        return torch.cat([F.pixel_unshuffle(prototypes, BLOCK), table], 1)


class FastSamDecoderGraph(nn.Module):
    """Prompts choose among detections.

    Mask 0 is upstream's answer. To a box that is the detection whose mask it fits best. To points it is all detections
    that hold a foreground point, one after the other from large to small, less those that hold a background point.
    Masks 1 to 3 are single detections: those that fit a box best or, without one, the most confident that hold all
    foreground points and no background point. What they are worth is predicted as the fit, or as the confidence.
    Points beside a box rule out detections in the same way; there is no such prompt upstream.
    """

    def __init__(self, spec: VariantSpec) -> None:
        super().__init__()
        self.side = spec.low_res_size
        self.scale = spec.low_res_size / spec.prompt_size
        self.register_buffer("places", torch.arange(self.side, dtype=torch.float32) + 0.5, persistent=False)
        self.places: Tensor

    def forward(self, image_embedding: Tensor, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """As :class:`~samgate.variants.nets.sam.DecoderGraph`, but no prompt has a padding point."""
        prototypes = F.pixel_shuffle(image_embedding[:, : PROTOTYPES * BLOCK**2], BLOCK)
        table = image_embedding[:, PROTOTYPES * BLOCK**2 :].flatten(1)[:, : MOST * ROW].reshape(-1, MOST, ROW)
        boxes, confidence, coefficients = table[..., :4] * self.side, table[..., 4], table[..., 5:]
        flat = prototypes.flatten(2)
        there = (confidence > 0).to(torch.float32)
        across, down = (self._reach(boxes[..., first], boxes[..., first + 2]) for first in (0, 1))
        hot = ((coefficients @ flat) > 0).to(torch.float32).reshape(-1, MOST, self.side, self.side)
        held = hot * (across > 0).to(torch.float32).unsqueeze(2) * (down > 0).to(torch.float32).unsqueeze(3)
        held = held * there.unsqueeze(2).unsqueeze(3)
        areas = held.sum((2, 3))

        positive, negative = (point_labels == 1).to(torch.float32), (point_labels == 0).to(torch.float32)
        corners = (point_labels == 2).to(torch.float32), (point_labels == 3).to(torch.float32)
        has_box = corners[0].amax(2, keepdim=True)
        first, last = ((point_coords * one.unsqueeze(3)).sum(2) * self.scale for one in corners)
        fit = self._fit(held, areas, first, last)
        holds = self._holds(prototypes, coefficients, boxes, point_coords * self.scale) * there[:, None, None]
        wrong = (positive.unsqueeze(3) * (1 - holds) + negative.unsqueeze(3) * holds).sum(2)
        worth = (has_box * fit + (1 - has_box) * confidence.unsqueeze(1) - wrong) * there.unsqueeze(1)

        best, chosen = worth.topk(3)
        single = self._masks(flat, self._rows(table, chosen))
        found = (best > 0).to(torch.float32)[..., None, None]
        single = single * found + NOTHING * (1 - found)
        united, confident = self._united(flat, table, areas, holds, positive, negative)
        box = has_box[..., None, None]
        first_mask = torch.where(box > 0, single[:, :, :1], united)
        worths = best.clamp(0, 1)
        first_worth = has_box * worths[..., :1] + (1 - has_box) * confident
        return torch.cat([first_mask, single], 2), torch.cat([first_worth, worths], 2)

    def _reach(self, low: Tensor, high: Tensor) -> Tensor:
        """How far inside of [``low``, ``high``] ``[…]`` every place is: ``[…, L]``."""
        return torch.minimum(self.places - low.unsqueeze(-1), high.unsqueeze(-1) - self.places)

    def _fit(self, held: Tensor, areas: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """IoU of all masks with what lies in the boxes from ``first`` to ``last`` ``[I, P, 2]``: ``[I, P, MOST]``.
        Upstream counts pixels of the image, which here count by how much of them a box covers."""
        low, high = self.places - 0.5, self.places + 0.5
        columns, rows = (
            (torch.minimum(high, last[..., axis : axis + 1]) - torch.maximum(low, first[..., axis : axis + 1])).clamp(
                min=0
            )
            for axis in (0, 1)
        )
        strips = held.flatten(1, 2) @ columns.transpose(1, 2)
        count = strips.shape[2]
        strips = strips.reshape(-1, MOST, self.side, count)
        inside = (strips * rows.transpose(1, 2).unsqueeze(1)).sum(2).transpose(1, 2)
        size = columns.sum(2, keepdim=True) * rows.sum(2, keepdim=True)
        return inside / (size + areas.unsqueeze(1) - inside).clamp(min=1e-3)

    def _holds(self, prototypes: Tensor, coefficients: Tensor, boxes: Tensor, at: Tensor) -> Tensor:
        """Whether masks hold points ``at`` ``[I, P, K, 2]``: ``[I, P, K, MOST]`` of 0 and 1."""
        inner = at.clamp(0.5, self.side - 0.5).flatten(1, 2)
        columns, rows = ((1 - (self.places - inner[..., axis : axis + 1]).abs()).clamp(min=0) for axis in (0, 1))
        strips = prototypes @ columns.transpose(1, 2).unsqueeze(1)
        sampled = (strips * rows.transpose(1, 2).unsqueeze(1)).sum(2)
        count = at.shape[2]
        logits = (coefficients @ sampled).transpose(1, 2)
        logits = logits.reshape(at.shape[0], -1, count, MOST)
        x, y = at[..., :1], at[..., 1:]
        x0, y0, x1, y1 = boxes[:, None, None].unbind(4)
        inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1) & (logits > 0)
        return inside.to(torch.float32)

    def _rows(self, table: Tensor, chosen: Tensor) -> Tensor:
        """Of ``table`` the rows ``chosen`` ``[I, P, R]``: ``[I, P, R, ROW]``."""
        images, prompts, count = chosen.shape
        rows = table.gather(1, chosen.flatten(1).unsqueeze(2).expand(-1, -1, ROW))
        return rows.reshape(images, prompts, count, ROW)

    def _masks(self, flat: Tensor, rows: Tensor) -> Tensor:
        """Low-res logits ``[I, P, R, L, L]`` of ``rows`` ``[I, P, R, ROW]``."""
        logits = (rows[..., 5:] @ flat.unsqueeze(1)).reshape(*rows.shape[:3], self.side, self.side)
        boxes = rows[..., :4] * self.side
        across, down = (-self._reach(boxes[..., first], boxes[..., first + 2]) for first in (0, 1))
        beyond = torch.maximum(across.unsqueeze(3), down.unsqueeze(4))
        turned = logits.abs() * (beyond / (1 - beyond).clamp(min=1e-3)).clamp(1e-3, STEEPEST)
        return torch.where(beyond >= 0, torch.minimum(logits, -turned), logits)

    def _united(
        self, flat: Tensor, table: Tensor, areas: Tensor, holds: Tensor, positive: Tensor, negative: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits ``[I, P, 1, L, L]`` of what points make, and the highest confidence in it ``[I, P, 1]``."""
        # Of the points in a mask, the last one decides whether it is put in or taken out.
        turn = torch.arange(1, positive.shape[2] + 1).to(torch.float32).unsqueeze(1)
        puts, takes = ((holds * one.unsqueeze(3) * turn).amax(2) for one in (positive, negative))
        counts = (puts != takes).to(torch.float32)
        sizes, chosen = (counts * (areas.unsqueeze(1) + 1)).topk(_UNITED)
        counts = (sizes > 0).to(torch.float32)
        put = counts * (puts.gather(2, chosen) > takes.gather(2, chosen)).to(torch.float32)
        take = counts * (1 - put)
        masks = self._masks(flat, self._rows(table, chosen))
        # What is there, x, becomes min(max(x, low), high) with every mask; two of these one after the other are one.
        low, high = masks - _FAR * (1 - put)[..., None, None], _FAR * (1 - take)[..., None, None] - masks
        for _ in range(_UNITED.bit_length() - 1):
            later, high_2 = low[:, :, 1::2], high[:, :, 1::2]
            high = torch.minimum(torch.maximum(high[:, :, ::2], later), high_2)
            low = torch.maximum(low[:, :, ::2], later)
        united = torch.minimum(low.clamp(min=NOTHING), high)
        confidence = table[..., 4].unsqueeze(1) * (puts > takes).to(torch.float32)
        return united, confidence.amax(2, keepdim=True).clamp(0, 1)


def build(spec: VariantSpec) -> YoloV8:
    """The network for the sizes of ``spec``, with its parameters not yet loaded."""
    return YoloV8(YoloScale(**spec.architecture), classes=1, prototypes=PROTOTYPES)


def graph_module(spec: VariantSpec, network: Any, name: GraphName) -> nn.Module:
    """What computes the graph ``name`` of ``spec``."""
    return FastSamEncoderGraph(network, spec) if name == "encoder" else FastSamDecoderGraph(spec)


def _corners(boxes: Tensor) -> Tensor:
    """Centre and size ``[N, 4, C]`` → (x0, y0, x1, y1)."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1)


def _taken(rows: Tensor, places: Tensor) -> Tensor:
    """Of ``rows`` ``[N, R, C]`` the columns ``places`` ``[N, c]``."""
    return rows.gather(2, places.unsqueeze(1).expand(-1, rows.shape[1], -1))
