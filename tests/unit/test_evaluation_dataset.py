"""Reading COCO files, good and bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from samgate.errors import InvalidArgument
from samgate.evaluation.dataset import DatasetError, load_dataset


def write(folder: Path, *annotations: dict[str, Any], **image: Any) -> Path:
    entry = {"id": 7, "file_name": "a.png", "width": 60, "height": 40, **image}
    (folder / "a.png").write_bytes(b"")
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": [entry], "annotations": [{"image_id": 7, **one} for one in annotations]}))
    return path


def square(**changes: Any) -> dict[str, Any]:
    polygon = [[10, 10, 50, 10, 50, 30, 10, 30]]
    return {"segmentation": polygon, "bbox": [10, 10, 40, 20], "area": 800, "iscrowd": 0, **changes}


def test_polygons_become_masks_and_boxes_get_corners(tmp_path: Path) -> None:
    (image,) = load_dataset(write(tmp_path, square(), source="there"), min_area=100)
    assert (image.path, image.size, image.source) == (tmp_path / "a.png", (40, 60), "there")
    (instance,) = image.instances
    assert instance.box == pytest.approx((10, 10, 50, 30))
    assert instance.area == 800
    mask = instance.mask()
    assert mask.shape == (40, 60)
    assert mask[10:30, 10:50].all()
    assert mask.sum() == 800


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_are_read_in_both_forms(tmp_path: Path, compressed: bool) -> None:
    mask = np.zeros((40, 60), np.uint8, order="F")
    mask[3:9, 5:8] = 1
    if compressed:
        packed = coco_mask.encode(mask)
        shape = {"size": packed["size"], "counts": packed["counts"].decode()}
    else:
        runs = np.diff(np.flatnonzero(np.diff(np.r_[0, mask.ravel(order="F"), 0])), prepend=0)
        shape = {"size": [40, 60], "counts": [*runs.tolist(), mask.size - int(runs.sum())]}
    (image,) = load_dataset(write(tmp_path, square(segmentation=shape)), min_area=0)
    np.testing.assert_array_equal(image.instances[0].mask(), mask)


def test_crowds_and_small_objects_are_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, square(iscrowd=1), square(area=99), square(area=100))
    assert [len(image.instances) for image in load_dataset(path, min_area=100)] == [1]
    with pytest.raises(DatasetError, match="no instance of at least 5000 pixels"):
        load_dataset(path, min_area=5000)


def test_small_images_are_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, square())
    assert len(load_dataset(path, 0, min_side=60)) == 1, "the longer side counts"
    with pytest.raises(DatasetError, match="in an image of at least 61 pixels on a side"):
        load_dataset(path, 0, min_side=61)


def test_images_are_also_looked_for_in_the_folder_images(tmp_path: Path) -> None:
    path = write(tmp_path, square())
    (tmp_path / "images").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "images" / "a.png")
    assert load_dataset(path, 0)[0].path == tmp_path / "images" / "a.png"
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"names an image that is neither .*a\.png nor .*images/a\.png"):
        load_dataset(path, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "it is a list"),
        ('{"images": []}', "KeyError: 'annotations'"),
        ('{"images": [], "annotations": [3]}', "instances format"),
        ('{"images": [], "annotations": []}', "no instance"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=message):
        load_dataset(path)


def test_a_missing_file_and_a_useless_limit_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.json can't be read: No such file"):
        load_dataset(tmp_path / "nowhere.json")
    with pytest.raises(InvalidArgument, match="limit: must be at least 1, is 0"):
        load_dataset(write(tmp_path, square()), 0, limit=0)


@pytest.mark.parametrize(
    "broken",
    [
        {"bbox": [0, 0, 0, 4]},
        {"bbox": [0, 0]},
        {"segmentation": {"size": [4, 4], "counts": [16]}},
        {"segmentation": None},
    ],
)
def test_broken_annotations_are_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="instances format"):
        load_dataset(write(tmp_path, square(**broken)), 0)
