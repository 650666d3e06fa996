"""Requests go to systems that were made for their prompts: a small EfficientSAM, which takes few kinds, beside
MobileSAM, which takes all. Both with drawn weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parity.weights import draw_state
from samgate.api.server import load_models, running
from samgate.client import AsyncClient, Handle
from samgate.config import EngineSettings, Settings
from samgate.errors import InvalidArgument
from samgate.variants import VARIANTS, get_variant
from samgate.weights.formats import network_shapes
from samgate.weights.pull import pull
from scheduling_support import point, profile

FEW, ALL = "efficientsam-ti", "mobilesam"
LOGITS = np.ones((256, 256), np.float32)
SEVEN = [[10 * place, 20] for place in range(1, 8)]
BOX = [10, 10, 200, 200]


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are installed in a home of their own."""
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(VARIANTS, FEW, get_variant(FEW).reduced())
    # Without the graphs of SegEvery, which take longest to compile.
    monkeypatch.setitem(
        VARIANTS, ALL, replace(get_variant(ALL).reduced(), graphs=("encoder", "decoder", "masked_decoder"))
    )
    for name in (FEW, ALL):
        spec = get_variant(name)
        state = {name: torch.tensor(value) for name, value in draw_state(network_shapes(spec)).items()}
        file = tmp_path / f"{name}.pt"
        torch.save(state, file)
        pull(spec, from_file=file)


@asynccontextmanager
async def serving(folder: Path, *names: str) -> AsyncIterator[AsyncClient]:
    """EfficientSAM is believed to be the more accurate, and so preferred."""
    settings = Settings(variants=",".join(names), engine=EngineSettings(precision="f32"))
    models = await asyncio.to_thread(load_models, settings, lambda message: None)
    device = profile(*(point(name, prompt=0.6 if name == FEW else 0.5) for name in names))
    target = f"unix:{folder / 'socket'}"
    async with running(settings, models, device, target, doors=False), AsyncClient(target, retries=0) as client:
        yield client


async def test_prompts_decide_who_may_answer(drawn: None, photo: bytes, tmp_path: Path) -> None:
    async with serving(tmp_path, FEW, ALL) as client:

        async def who(image: bytes | Handle = photo, **prompt: Any) -> str:
            answer = await client.segment(image, timeout_s=120, **prompt)
            return answer.info.variant

        assert await who(points=[[100, 120]]) == FEW
        assert await who(points=SEVEN[:4], box=BOX) == FEW
        assert await who(points=SEVEN) == ALL
        assert await who(points=SEVEN[:5], box=BOX) == ALL
        assert await who(points=[[100, 120]], labels=[0]) == ALL
        assert await who(points=[[100, 120]], mask_logits=LOGITS) == ALL
        with pytest.raises(InvalidArgument, match=r"prompts\[0\]\.points: has 7; the limit of efficientsam-ti is 6"):
            await who(points=SEVEN, variant=FEW)
        with pytest.raises(InvalidArgument, match=r"prompts\[0\]\.points: has 5, and the box counts as two"):
            await who(points=SEVEN[:5], box=BOX, variant=f"{FEW}:f32")
        embedded = await client.embed(photo, timeout_s=120)
        assert embedded.info.variant == FEW
        with pytest.raises(InvalidArgument, match=r"prompts\[0\]\.points\[0\]\.label: is BACKGROUND; efficientsam-ti"):
            await who(embedded.handle, points=[[100, 120]], labels=[0])
        with pytest.raises(InvalidArgument, match=r"prompts\[0\]\.mask_logits: is given; efficientsam-ti takes no"):
            await who(embedded.handle, points=[[100, 120]], mask_logits=LOGITS)


async def test_where_nobody_takes_them_they_are_refused(drawn: None, photo: bytes, tmp_path: Path) -> None:
    async with serving(tmp_path, FEW) as client:
        with pytest.raises(InvalidArgument, match=r"prompts\[0\]\.points: has 7; the limit of efficientsam-ti is 6"):
            await client.segment(photo, points=SEVEN, timeout_s=60)
        answer = await client.segment(photo, points=SEVEN[:6], selection="multi", timeout_s=60)
        assert len(answer.masks) == 3
