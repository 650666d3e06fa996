"""Reads instance masks in COCO's format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pycocotools import mask as coco_mask

from samgate.domain import Rle, UInt8Array
from samgate.errors import InvalidArgument, SamgateError
from samgate.imaging.rle import rle_to_mask

T = TypeVar("T")


class DatasetError(SamgateError):
    """The data set's file or one of its images can't be used."""

    status = "INVALID_ARGUMENT"


@dataclass(frozen=True, slots=True)
class Instance:
    """One labelled object: its mask, and its box (x0, y0, x1, y1) and area in pixels as the data set gives them."""

    rle: Rle
    box: tuple[float, float, float, float]
    area: float

    def mask(self) -> UInt8Array:
        """uint8 ``[H, W]`` of 0 and 1."""
        return rle_to_mask(self.rle)


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image file, ``size`` (height, width), the name of its ``source`` and the instances to find in it."""

    path: Path
    size: tuple[int, int]
    source: str
    instances: tuple[Instance, ...]


def coco_rle(rle: Rle) -> dict[str, Any]:
    """``rle`` as pycocotools takes it."""
    return {"size": list(rle.size), "counts": rle.counts}


def load_dataset(
    path: Path, min_area: float = 1024.0, limit: int | None = None, min_side: int = 0
) -> list[LabelledImage]:
    """The images that have instances to evaluate, in the file's order.

    Crowds (``iscrowd``) are skipped, and instances whose ``area`` is less than ``min_area`` pixels, and images whose
    longer side is less than ``min_side``. An image's ``file_name`` is relative to the file's folder or to the folder
    ``images`` in it; its ``source``, where the data set has several, tells where it is from.

    Args:
        limit: the most images to return; None for all.

    Raises:
        DatasetError: the file is missing, is no COCO instances file, or an image is missing.
    """
    content = _read(path)
    if limit is not None and limit < 1:
        raise InvalidArgument("limit", f"must be at least 1, is {limit}")
    try:
        wanted: dict[int, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            if not annotation.get("iscrowd") and _area(annotation) >= min_area:
                wanted.setdefault(annotation["image_id"], []).append(annotation)
        entries = [entry for entry in content["images"] if entry["id"] in wanted]
        large = [entry for entry in entries if max(entry["width"], entry["height"]) >= min_side]
        images = [_image(path, entry, wanted[entry["id"]]) for entry in large]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{path} is not in COCO's instances format ({type(error).__name__}: {error}); it needs images (id, "
            "file_name, width, height) and annotations (image_id, segmentation, bbox, area)"
        ) from error
    if not images:
        where = f" in an image of at least {min_side} pixels on a side" if min_side else ""
        raise DatasetError(f"{path} has no instance of at least {min_area:g} pixels that is not a crowd{where}")
    return images[:limit]


def spread(items: Sequence[T], count: int) -> list[T]:
    """``count`` of ``items`` (all, if they are fewer) in their order, evenly spaced: a file's images come by source."""
    chosen = min(count, len(items))
    return [items[(2 * index + 1) * len(items) // (2 * chosen)] for index in range(chosen)]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} is not in COCO's instances format: it is a {type(content).__name__}, not an object")
    return content


def _area(annotation: dict[str, Any]) -> float:
    if "area" in annotation:
        return float(annotation["area"])
    return float(annotation["bbox"][2] * annotation["bbox"][3])


def _image(dataset: Path, entry: dict[str, Any], annotations: list[dict[str, Any]]) -> LabelledImage:
    size = int(entry["height"]), int(entry["width"])
    candidates = [dataset.parent / entry["file_name"], dataset.parent / "images" / entry["file_name"]]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise DatasetError(f"{dataset} names an image that is neither {candidates[0]} nor {candidates[1]}")
    instances = tuple(_instance(annotation, size) for annotation in annotations)
    return LabelledImage(found, size, str(entry.get("source", "all")), instances)


def _instance(annotation: dict[str, Any], size: tuple[int, int]) -> Instance:
    shape = annotation["segmentation"]
    if isinstance(shape, list):
        packed = coco_mask.merge(coco_mask.frPyObjects(shape, *size))
    elif isinstance(shape["counts"], list):
        packed = coco_mask.frPyObjects(shape, *size)
    else:
        packed = {"size": shape["size"], "counts": shape["counts"].encode()}
    if tuple(packed["size"]) != size:
        raise ValueError(f"annotation {annotation.get('id')} is of size {packed['size']}, its image of {list(size)}")
    x, y, width, height = (float(value) for value in annotation["bbox"])
    if not np.isfinite([x, y, width, height]).all() or width <= 0 or height <= 0:
        raise ValueError(f"annotation {annotation.get('id')} has the box {annotation['bbox']}")
    return Instance(Rle((size[0], size[1]), packed["counts"]), (x, y, x + width, y + height), _area(annotation))
