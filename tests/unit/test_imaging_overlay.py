"""Masks and prompts drawn over an image."""

from __future__ import annotations

import numpy as np

from samgate.imaging.overlay import draw, mask_colour

GREY = np.full((120, 160, 3), 100, dtype=np.uint8)


def square(x0: int, y0: int, x1: int, y1: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    mask = np.zeros((120, 160), dtype=np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def blended(index: int) -> list[int]:
    return [round((100 + channel) / 2) for channel in mask_colour(index)]


def test_nothing_to_draw_is_a_copy() -> None:
    drawn = draw(GREY)
    assert np.array_equal(drawn, GREY)
    assert drawn is not GREY


def test_read_only_images_are_left_alone() -> None:
    image = GREY.copy()
    image.flags.writeable = False
    draw(image, [square(20, 20, 60, 60)])
    assert np.array_equal(image, GREY)


def test_fill_is_translucent_and_outline_brighter() -> None:
    drawn = draw(GREY, [square(20, 20, 60, 60)])
    assert np.abs(drawn[40, 40].astype(int) - blended(0)).max() <= 1
    assert drawn[20, 40].sum() > drawn[40, 40].sum()
    assert np.array_equal(drawn[90:, 90:], GREY[90:, 90:])


def test_small_masks_lie_on_top_in_their_own_colour() -> None:
    small, large = square(60, 40, 90, 70), square(10, 10, 150, 110)
    for masks, place in (([small, large], 0), ([large, small], 1)):
        assert np.abs(draw(GREY, masks)[55, 75].astype(int) - blended(place)).max() <= 1


def test_uint8_and_empty_masks() -> None:
    masks = [square(20, 20, 60, 60).astype(np.uint8) * 255, np.zeros((120, 160), dtype=np.uint8)]
    assert np.array_equal(draw(GREY, masks), draw(GREY, [square(20, 20, 60, 60)]))


def test_points_and_boxes() -> None:
    drawn = draw(
        GREY,
        boxes=np.array([[10, 10, 80, 100]], dtype=np.float32),
        points=np.array([[40.5, 40.5], [120.5, 60.5]], dtype=np.float32),
        labels=np.array([1, 0], dtype=np.int32),
    )
    red, green, _ = drawn[40, 40].tolist()
    assert green > red
    red, green, _ = drawn[60, 120].tolist()
    assert red > green
    assert drawn[60, 127].min() > 200  # the ring
    assert not np.array_equal(drawn[10, 40], GREY[10, 40])


def test_points_without_labels_are_foreground() -> None:
    _, green, _ = draw(GREY, points=np.array([[40, 40]], dtype=np.float32))[40, 40].tolist()
    assert green > 150


def test_the_first_colours_are_far_apart() -> None:
    colours = np.array([mask_colour(index) for index in range(8)], dtype=float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + np.eye(8) * 1e3
    assert distances.min() > 30
