"""Decoder calls that several threads share out have the masks of those that one call makes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from parity.weights import draw_pixels
from samgate.config import EngineSettings
from samgate.domain import Choose, FloatArray
from samgate.engines.base import Images, Prompts
from samgate.engines.embedded import Decoder, EmbeddedEngine, LoadedGraphs
from samgate.engines.load import load_embedded
from samgate.variants import VARIANTS
from segevery_support import in_full

SPEC = VARIANTS["mobilesam"]
TOLERANCE = 1e-4
"""|Δ| / |what one call says|: sums are made in another order, as many threads or few."""


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest, installed: None) -> Iterator[EmbeddedEngine]:
    made = load_embedded(SPEC, EngineSettings(name=request.param, precision="f32", threads=2), lambda line: None)
    assert isinstance(made, EmbeddedEngine)
    # Else both sides of every comparison would be the same call.
    graphs = made._graphs
    assert graphs.masked_decoder is not None
    assert [len(graph.parts) for graph in (graphs.decoder, graphs.masked_decoder)] == [2, 2]
    assert len(graphs.lanes) == made.capacity.lanes == made.capacity.decode_images == 2
    yield made
    asyncio.run(made.close())


def whole(engine: EmbeddedEngine) -> EmbeddedEngine:
    """``engine``'s graphs, one call after another."""
    graphs = engine._graphs
    assert graphs.masked_decoder is not None
    decoder, masked = (Decoder(graph.whole) for graph in (graphs.decoder, graphs.masked_decoder))
    alone = LoadedGraphs(graphs.encoder, decoder, masked, graphs.terms, graphs.lanes[:1])
    return EmbeddedEngine(engine.name, engine.precision, alone, engine.capacity)


def better(least: float) -> Choose:
    """Masks that are predicted a higher IoU."""
    return lambda ious, coarse: in_full(np.argwhere(ious > np.float32(least)), coarse)


def far(found: NDArray[Any], expected: NDArray[Any]) -> float:
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="module")
def embeddings(engine: EmbeddedEngine) -> list[FloatArray]:
    """Of three images."""
    size = SPEC.input_size
    valid = np.array([[size, size]], np.int32)
    drawn = [Images(draw_pixels(f"image {n}", (1, size, size, 3)), valid) for n in range(3)]
    return [asyncio.run(engine.encode(images, math.inf))[0] for images in drawn]


def prompts(images: int, count: int, *, masked: bool) -> Prompts:
    random = np.random.default_rng(count)
    coords = random.uniform(0, SPEC.input_size, (images, count, 2, 2)).astype(np.float32)
    labels = np.tile(np.array([1, -1], np.int32), (images, count, 1))
    if not masked:
        return Prompts(coords, labels)
    masks = random.normal(0, 5, (images, count, 1, 256, 256)).astype(np.float32)
    return Prompts(coords, labels, masks, np.ones((images, count), np.float32))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("images", "count"), [(2, 1), (3, 2), (1, 5)])
async def test_masks_are_those_of_one_call(
    engine: EmbeddedEngine, embeddings: list[FloatArray], images: int, count: int, masked: bool
) -> None:
    asked, made = prompts(images, count, masked=masked), embeddings[:images]
    found = await engine.decode(made, asked, math.inf)
    expected = await whole(engine).decode(made, asked, math.inf)
    assert far(found.low_res_masks, expected.low_res_masks) <= TOLERANCE
    assert far(found.iou_predictions, expected.iou_predictions) <= TOLERANCE


async def test_survivors_are_those_of_one_call(engine: EmbeddedEngine, embeddings: list[FloatArray]) -> None:
    asked, made = prompts(1, 16, masked=False), embeddings[0]
    every = await whole(engine).survivors(made, asked, better(-math.inf), math.inf)
    assert len(every.kept) == every.ious.size
    # Between two neighbours: no candidate is so near to it that rounding decides.
    ranked = np.sort(every.ious.ravel())
    middle = len(ranked) // 4 + int(np.argmax(np.diff(ranked[len(ranked) // 4 : -len(ranked) // 4])))
    least = better(float(ranked[middle : middle + 2].mean()))
    expected = await whole(engine).survivors(made, asked, least, math.inf)
    found = await engine.survivors(made, asked, least, math.inf)
    assert 0 < len(expected.kept) < expected.ious.size
    assert np.array_equal(found.kept, expected.kept)
    assert far(found.ious, expected.ious) <= TOLERANCE
    assert far(found.masks, expected.masks) <= TOLERANCE
