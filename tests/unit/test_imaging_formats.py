"""Every format restores every mask, and RLE is what pycocotools writes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco

from samgate.domain import Format, Rle, UInt8Array
from samgate.imaging.formats import encode, packed_to_mask, png_to_mask, polygons_to_mask, rle_to_mask
from samgate.imaging.rle import mask_to_rle, region_to_rle, rle_area


def masks(largest: int = 24) -> st.SearchStrategy[UInt8Array]:
    """Of all shapes and densities, noise and blobs."""

    def make(size: tuple[int, int], seed: int, sigma: float, level: float) -> UInt8Array:
        values = np.random.default_rng(seed).normal(0, 1, size).astype(np.float32)
        if sigma > 0.3:
            values = np.asarray(cv2.GaussianBlur(values, (0, 0), sigma) * sigma * 2, dtype=np.float32)
        return (values > level).astype(np.uint8)

    sides = st.integers(1, largest)
    return st.builds(make, st.tuples(sides, sides), st.integers(0, 2**32 - 1), st.floats(0, 4), st.floats(-2, 2))


def decoded(mask: UInt8Array, mask_format: Format) -> UInt8Array:
    data = encode(mask, mask_format)
    size = (mask.shape[0], mask.shape[1])
    if isinstance(data, Rle):
        return rle_to_mask(data)
    if isinstance(data, tuple):
        return polygons_to_mask(data, size)
    return png_to_mask(data) if mask_format is Format.PNG else packed_to_mask(data, size)


FORMATS = [Format.RLE, Format.PNG, Format.POLYGONS, Format.PACKED_BITS]


@pytest.mark.parametrize("mask_format", FORMATS)
@settings(max_examples=150, deadline=None)
@given(mask=masks())
def test_masks_survive(mask_format: Format, mask: UInt8Array) -> None:
    restored = decoded(mask, mask_format)
    assert restored.dtype == np.uint8
    assert np.array_equal(restored, mask)


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 1)))
def test_adversarial_masks_survive_as_polygons_and_rle(mask: UInt8Array) -> None:
    assert np.array_equal(decoded(mask, Format.POLYGONS), mask)
    assert np.array_equal(decoded(mask, Format.RLE), mask)


@pytest.mark.parametrize("mask_format", FORMATS)
@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (20, 30)])
def test_plain_masks_survive(mask_format: Format, value: int, size: tuple[int, int]) -> None:
    mask = np.full(size, value, dtype=np.uint8)
    assert np.array_equal(decoded(mask, mask_format), mask)


@settings(max_examples=200, deadline=None)
@given(masks())
def test_rle_is_pycocotools(mask: UInt8Array) -> None:
    reference = coco.encode(np.asfortranarray(mask))
    rle = mask_to_rle(mask)
    assert rle.counts == reference["counts"]
    assert list(rle.size) == reference["size"]
    assert rle_area(rle) == coco.area(reference) == mask.sum()


@settings(max_examples=100, deadline=None)
@given(masks(12), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_region_rle_is_that_of_the_whole(region: UInt8Array, left: int, top: int, right: int, bottom: int) -> None:
    whole = np.pad(region, ((top, bottom), (left, right)))
    size = (whole.shape[0], whole.shape[1])
    assert region_to_rle(region, left, top, size) == mask_to_rle(whole)
    assert mask_to_rle(whole).counts == coco.encode(np.asfortranarray(whole))["counts"]


def test_empty_region() -> None:
    rle = region_to_rle(np.zeros((0, 0), dtype=np.uint8), 0, 0, (4, 5))
    assert rle == mask_to_rle(np.zeros((4, 5), dtype=np.uint8))


def test_packed_bits_are_row_by_row_most_significant_first() -> None:
    mask = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 1]], dtype=np.uint8)
    assert encode(mask, Format.PACKED_BITS) == bytes([0b10000101, 0b10000000])


def test_packed_bits_of_the_wrong_length() -> None:
    with pytest.raises(ValueError, match="3×3 pixels are 2 bytes, not 3"):
        packed_to_mask(b"abc", (3, 3))


def test_png_is_grey_0_and_255() -> None:
    mask = np.eye(20, 30, dtype=np.uint8)
    png = encode(mask, Format.PNG)
    assert isinstance(png, bytes)
    image = Image.open(io.BytesIO(png))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), mask * 255)


@pytest.mark.parametrize("png", [b"", b"not a PNG"])
def test_not_a_png(png: bytes) -> None:
    with pytest.raises(ValueError, match="not a PNG"):
        png_to_mask(png)


def test_low_res_logits_are_not_a_mask_format() -> None:
    with pytest.raises(ValueError, match="not made of a mask"):
        encode(np.ones((2, 2), dtype=np.uint8), Format.LOW_RES_LOGITS)


def test_holes_follow_their_region() -> None:
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[2:18, 2:14] = 1
    mask[5:15, 5:11] = 0
    mask[8:11, 7:9] = 1  # an island in the hole
    mask[3:6, 20:25] = 1
    polygons = encode(mask, Format.POLYGONS)
    assert isinstance(polygons, tuple)
    kinds = [polygon.hole for polygon in polygons]
    assert sorted(kinds) == [False, False, False, True]
    outer = polygons[kinds.index(True) - 1]
    assert outer.points.tolist() == [[2, 2], [2, 17], [13, 17], [13, 2]]
    # Nor does their order matter, as long as holes stay with their regions.
    groups = [[polygon] for polygon in polygons if not polygon.hole]
    next(group for group in groups if group[0] is outer).append(polygons[kinds.index(True)])
    assert np.array_equal(polygons_to_mask([one for group in reversed(groups) for one in group], (20, 30)), mask)


def test_real_masks_survive(shared_data: Path) -> None:
    truth = json.loads((shared_data / "eval" / "instances.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for annotation in truth["annotations"][::40]:
        segmentation, size = annotation["segmentation"], sizes[annotation["image_id"]]
        if isinstance(segmentation, list):
            packed = coco.merge(coco.frPyObjects(segmentation, *size))
        else:
            uncompressed = isinstance(segmentation["counts"], list)
            packed = coco.frPyObjects(segmentation, *size) if uncompressed else segmentation
        mask = coco.decode(packed)
        rle = mask_to_rle(np.ascontiguousarray(mask))
        assert rle.counts == coco.encode(mask)["counts"]
        x, y, width, height = coco.toBbox(coco.encode(mask)).tolist()
        assert cv2.boundingRect(mask) == (x, y, width, height)
        for mask_format in FORMATS:
            assert np.array_equal(decoded(np.ascontiguousarray(mask), mask_format), mask)
