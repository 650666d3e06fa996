"""Masks that are in the embedding: how they are laid out, and SegEvery without prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from parity.weights import draw
from samgate.domain import Frame
from samgate.imaging.masks import full_logits
from samgate.imaging.preprocess import encoder_input, frame_of
from samgate.imaging.sampling import logits_at
from samgate.segevery.found import FoundSampler
from samgate.segevery.parameters import GridParameters
from samgate.segevery.strategies import STRATEGIES, Strategy, StrategyParameters, inapplicable
from samgate.variants import get_variant
from samgate.variants.detections import BLOCK, MOST, NOTHING, PROTOTYPES, ROW, detections_in
from samgate.variants.nets.fastsam import DUPLICATE, Distinct, FastSamDecoderGraph

SPEC = get_variant("fastsam-s")
SIDE = SPEC.low_res_size
SIZE = (427, 640)
FRAME = frame_of(*SIZE, SPEC)


def embedding_of(boxes: np.ndarray, confidences: np.ndarray) -> np.ndarray:
    """``boxes`` ``[n, 4]`` in pixels of the input, each filled by its mask."""
    table = np.zeros((MOST, ROW), np.float32)
    table[: len(boxes), :4] = boxes / SPEC.input_size
    table[: len(boxes), 4] = confidences
    table[: len(boxes), 5] = 1
    prototypes = np.zeros((PROTOTYPES, SIDE, SIDE), np.float32)
    prototypes[0] = 9
    channels, rows, columns = SPEC.embedding_shape
    flat = np.zeros((channels - PROTOTYPES * BLOCK**2) * rows * columns, np.float32)
    flat[: table.size] = table.ravel()
    unshuffled = torch.nn.functional.pixel_unshuffle(torch.tensor(prototypes), BLOCK).numpy()
    return np.concatenate([unshuffled, flat.reshape(-1, rows, columns)])


def in_square(boxes: np.ndarray) -> np.ndarray:
    return FRAME.to_prompt(boxes.reshape(-1, 2, 2).astype(np.float32)).reshape(-1, 4)


BOXES = np.array([[40, 30, 220, 190], [300, 100, 340, 400], [0, 0, 640, 427]], np.float32)
CONFIDENCES = np.array([0.9, 0.8, 0.5], np.float32)


def test_the_numpy_masks_are_the_graphs() -> None:
    embedding = draw("found/embedding", SPEC.embedding_shape)
    found = detections_in(embedding)
    graph = FastSamDecoderGraph(SPEC)
    e = torch.tensor(embedding)[None]
    flat = torch.nn.functional.pixel_shuffle(e[:, : PROTOTYPES * BLOCK**2], BLOCK).flatten(2)
    table = e[:, PROTOTYPES * BLOCK**2 :].flatten(1)[:, : MOST * ROW].reshape(1, MOST, ROW)
    there = torch.nonzero(table[0, :, 4] > 0).flatten()
    masks = graph._masks(flat, graph._rows(table, there[None, None, :20]))[0, 0].numpy()
    assert len(found.confidences) == len(there) > 100
    ours = found.logits(slice(0, 20))
    assert np.linalg.norm(ours - masks) <= 1e-5 * np.linalg.norm(masks)
    assert ours.min() < NOTHING


def test_a_letterboxed_image_has_grey_on_both_sides_and_coordinates_come_back() -> None:
    square, frame = encoder_input(np.full((*SIZE, 3), 7, np.uint8), SPEC)
    assert frame.offset == (170, 0)
    assert frame.resized == (683, 1024)
    assert (square[170 : 170 + 683] == 7).all()
    assert (square[:170] == 114).all()
    assert (square[170 + 683 :] == 114).all()
    points = np.array([[0, 0], [640, 427], [100, 33]], np.float32)
    assert frame.cut(SIDE) == (slice(42, 213), slice(0, 256))
    assert frame.to_prompt(points)[1].tolist() == [1024, 4 * 213]
    assert np.allclose(frame.from_prompt(frame.to_prompt(points)), points, atol=1e-3)


@pytest.mark.parametrize("size", [(427, 640), (640, 427), (37, 53), (97, 1001), (1001, 97), (1, 900), (512, 512)])
def test_logits_at_single_pixels_are_those_of_whole_masks(size: tuple[int, int]) -> None:
    frame: Frame = frame_of(*size, SPEC)
    logits = draw("found/logits", (SIDE, SIDE))
    rows, columns = (np.arange(0, side, 7) for side in size)
    whole = full_logits(logits, frame)
    assert whole.shape == size
    assert np.allclose(logits_at(logits[None], frame, rows, columns)[0], whole[np.ix_(rows, columns)], atol=1e-4)


def test_all_masks_of_the_embedding_are_found_in_their_places() -> None:
    sampler = FoundSampler(GridParameters(max_masks=2), SIZE, SPEC)
    (crop,) = sampler.crops
    sampler.open_crop(crop, FRAME, embedding_of(in_square(BOXES), CONFIDENCES))
    assert sampler.prompts_total == len(BOXES)
    sizes = []
    while (chunk := sampler.next(crop, 2)) is not None:
        making = sampler.known(chunk)
        assert making is not None
        sampler.add(chunk, making())
        sizes.append(len(chunk))
    sampler.finish_crop(crop)
    assert sizes == [2, 1]
    found = sampler.finish()
    assert [one.predicted_iou for one in found] == pytest.approx([0.9, 0.8])
    for one, box in zip(found, BOXES, strict=False):
        assert one.box is not None
        assert np.abs(np.array(one.box) - box).max() <= 1
        assert np.allclose(one.point, (box[:2] + box[2:]) / 2, atol=1)


def test_a_detection_beside_the_image_has_no_mask() -> None:
    sampler = FoundSampler(GridParameters(), SIZE, SPEC)
    (crop,) = sampler.crops
    # Cut to nothing at the image's edge.
    boxes = np.concatenate([in_square(BOXES[:1]), [[0, 170, 500, 170]]])
    sampler.open_crop(crop, FRAME, embedding_of(boxes, CONFIDENCES[:2]))
    chunk = sampler.next(crop, 8)
    assert chunk is not None
    making = sampler.known(chunk)
    assert making is not None
    sampler.add(chunk, making())
    sampler.finish_crop(crop)
    assert [one.predicted_iou for one in sampler.finish()] == pytest.approx([0.9])


def test_an_image_with_nothing_in_it_has_no_masks() -> None:
    sampler = FoundSampler(GridParameters(), SIZE, SPEC)
    (crop,) = sampler.crops
    sampler.open_crop(crop, FRAME, embedding_of(BOXES[:0], CONFIDENCES[:0]))
    assert sampler.next(crop, 2) is None
    sampler.finish_crop(crop)
    assert sampler.finish() == []


def test_strategies_that_prompt_are_refused_by_name() -> None:
    for strategy in Strategy:
        problem = inapplicable(strategy, SPEC)
        assert (problem is None) == (strategy in {Strategy.GRID, Strategy.AUTO})
        assert inapplicable(strategy, get_variant("mobilesam")) is None
    assert "fastsam-s finds masks without prompts: ask for GRID and AUTO" in str(inapplicable(Strategy.AOP, SPEC))
    sampler = STRATEGIES[Strategy.AUTO].sampler(StrategyParameters(), SIZE, SPEC, None)
    assert isinstance(sampler, FoundSampler)


def greedy(boxes: np.ndarray) -> list[int]:
    """The textbook's: the best first, each unless one that stays overlaps it by more."""
    kept: list[int] = []
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        for other in kept:
            a0, b0, a1, b1 = boxes[other]
            inner = max(0, min(x1, a1) - max(x0, a0)) * max(0, min(y1, b1) - max(y0, b0))
            if inner > DUPLICATE * ((x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - inner):
                break
        else:
            kept.append(index)
    return kept


@pytest.mark.parametrize("jitter", [0.01, 0.02, 0.04])
def test_duplicates_are_those_of_greedy_suppression(jitter: float) -> None:
    random = np.random.default_rng(7)
    distinct = Distinct(SPEC.input_size, SPEC.low_res_size)
    centres = random.uniform(100, 900, (40, 2))
    sizes = random.uniform(30, 300, (40, 2))
    of = random.integers(0, 40, distinct.count)
    centre = centres[of] + random.normal(0, jitter, (distinct.count, 2)) * sizes[of]
    size = sizes[of] * np.exp(random.normal(0, jitter, (distinct.count, 2)))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], 1).astype(np.float32)
    keep = distinct._distinct(torch.tensor(boxes.T[None]), torch.ones(1, distinct.count))[0].numpy()
    assert np.flatnonzero(keep).tolist() == greedy(boxes.astype(np.float64))
    assert 40 <= keep.sum() < distinct.count


Given = tuple[tuple[float, float], int]
"""A point and its label."""


def point(x: float, y: float, label: int) -> Given:
    return (x, y), label


@pytest.mark.parametrize(
    ("given", "answer", "singles"),
    [
        ([point(100, 100, 1)], {0, 2}, [0, 2]),  # everything that holds it
        ([point(600, 50, 1)], {2}, [2]),
        ([point(600, 50, 1), point(100, 100, 0)], set(), []),  # the last point in the whole takes all of it out again
        ([point(100, 100, 1), point(600, 50, 0)], {0}, [0]),  # the whole is taken out, then the box put in
    ],
)
def test_points_unite_what_holds_them(given: list[Given], answer: set[int], singles: list[int]) -> None:
    embedding = torch.tensor(embedding_of(in_square(BOXES), CONFIDENCES))[None]
    coords = FRAME.to_prompt(np.array([at for at, _ in given], np.float32))
    labels = np.array([label for _, label in given], np.int32)
    masks, ious = FastSamDecoderGraph(SPEC)(
        embedding, torch.tensor(coords)[None, None], torch.tensor(labels)[None, None]
    )
    union, first, second, third = (full_logits(mask.numpy(), FRAME) > 0 for mask in masks[0, 0])
    regions = [np.zeros(SIZE, np.bool_) for _ in BOXES]
    for region, (x0, y0, x1, y1) in zip(regions, BOXES.astype(int), strict=True):
        region[y0:y1, x0:x1] = True
    expected = np.logical_or.reduce([np.zeros(SIZE, np.bool_), *(regions[index] for index in answer)])
    assert np.count_nonzero(union ^ expected) <= 0.01 * union.size
    for mask, index in zip((first, second, third), singles, strict=False):
        assert np.count_nonzero(mask ^ regions[index]) <= 0.005 * mask.size
    assert ious[0, 0, 1 + len(singles) :].tolist() == [0.0] * (3 - len(singles))
    assert not third.any()
