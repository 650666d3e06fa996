"""Masks ↔ outlines.

An outline runs through the centres of the outermost pixels of a region, or, for a hole, through the pixels of the
region around it (OpenCV's ``findContours``, after Suzuki and Abe, 1985). Regions are 8-connected and holes
4-connected; collinear points are left out. Nothing is lost: drawing the outlines restores every pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from samgate.domain import IntArray, Polygon, UInt8Array


def mask_to_polygons(mask: UInt8Array) -> tuple[Polygon, ...]:
    """The outlines of ``mask`` uint8 ``[H, W]``: each region's outer one, followed by those of its holes."""
    x, y, width, height = cv2.boundingRect(mask)
    contours, tree = cv2.findContours(
        mask[y : y + height, x : x + width], cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y)
    )
    if not contours:
        return ()
    holes: dict[int, list[int]] = {}
    for index, (_, _, _, parent) in enumerate(tree[0].tolist()):
        holes.setdefault(parent, []).append(index)
    found: list[Polygon] = []
    for outer in holes[-1]:
        found.append(_polygon(contours[outer], hole=False))
        found.extend(_polygon(contours[inner], hole=True) for inner in holes.get(outer, ()))
    return tuple(found)


def polygons_to_mask(polygons: Iterable[Polygon], size: tuple[int, int]) -> UInt8Array:
    """The mask uint8 ``[H, W]`` that :func:`mask_to_polygons` made ``polygons`` of; ``size`` is (height, width)."""
    mask = np.zeros(size, dtype=np.uint8)
    for outer, holes in _regions(polygons):
        x, y, width, height = cv2.boundingRect(outer)
        region = np.zeros((height, width), dtype=np.uint8)
        cv2.fillPoly(region, [outer], 1, offset=(-x, -y))
        for hole in holes:
            # A hole's outline belongs to the region around it.
            shifted = hole - np.array([x, y], dtype=np.int32)
            cv2.fillPoly(region, [shifted], 0)
            cv2.polylines(region, [shifted], True, 1)
        # Another region may lie within a hole of this one: add, never overwrite.
        part = mask[y : y + height, x : x + width]
        np.bitwise_or(part, region[: part.shape[0], : part.shape[1]], out=part)
    return mask


def _polygon(contour: cv2.typing.MatLike, hole: bool) -> Polygon:
    return Polygon(np.asarray(contour, dtype=np.float32).reshape(-1, 2), hole)


def _regions(polygons: Iterable[Polygon]) -> Sequence[tuple[IntArray, list[IntArray]]]:
    regions: list[tuple[IntArray, list[IntArray]]] = []
    for polygon in polygons:
        points = np.rint(polygon.points).astype(np.int32)
        if polygon.hole and regions:
            regions[-1][1].append(points)
        else:
            regions.append((points, []))
    return regions
