"""Confident prompts on photographs: more masks than a grid of more points finds."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from samgate.config import EngineSettings
from samgate.domain import FloatArray, Frame
from samgate.engines.base import Engine, Images
from samgate.engines.load import load_embedded
from samgate.imaging.decode import decode
from samgate.imaging.preprocess import encoder_input
from samgate.segevery.aop import AopSampler
from samgate.segevery.generator import GridSampler
from samgate.segevery.parameters import AopParameters, GridParameters
from samgate.segevery.sampler import Sampler
from samgate.serving.prompting import point_group
from samgate.variants import VARIANTS

SPEC = VARIANTS["mobilesam"]
PHOTOS = ("000000005802.jpg", "000000012448.jpg", "000000060623.jpg")

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = load_embedded(SPEC, EngineSettings(), lambda line: None)
    yield made
    await made.close()


async def found(sampler: Sampler, frame: Frame, embedding: FloatArray, engine: Engine) -> tuple[int, int]:
    """Prompts and masks."""
    (crop,) = sampler.crops
    sampler.open_crop(crop, frame, embedding)
    while chunk := sampler.next(crop, 16):
        prompts = point_group(chunk.points, frame, SPEC)
        sampler.add(chunk, await engine.survivors(embedding, prompts, partial(sampler.choose, chunk), math.inf))
    sampler.finish_crop(crop)
    return sampler.prompts_done, len(sampler.finish())


async def test_more_masks_of_fewer_prompts(engine: Engine, shared_data: Path) -> None:
    figures = []
    for name in PHOTOS:
        content = (shared_data / "eval" / "images" / "coco_train2017" / name).read_bytes()
        pixels, frame = encoder_input(decode(content, 10**6, name), SPEC)
        (embedding,) = await engine.encode(Images(pixels[None], np.array([frame.resized], np.int32)), math.inf)
        samplers: tuple[Sampler, ...] = (
            AopSampler(AopParameters(), frame.original, SPEC),
            GridSampler(GridParameters(points_per_side=12), frame.original, SPEC),
        )
        figures.append([await found(sampler, frame, embedding, engine) for sampler in samplers])
    (prompts, masks), (grid_prompts, grid_masks) = np.sum(figures, axis=0).tolist()
    assert prompts < grid_prompts
    assert masks > 1.2 * grid_masks
