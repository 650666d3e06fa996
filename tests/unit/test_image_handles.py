"""Who made a handle is read off it, whatever the variant is called."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from samgate.config import Settings
from samgate.domain import Frame
from samgate.serving.images import Images, handle
from samgate.serving.requests import Handle
from samgate.sessions import Embedding, EmbeddingCache
from samgate.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
async def test_the_maker_of_a_handle_is_known(name: str) -> None:
    model = SimpleNamespace(spec=VARIANTS[name], engine=SimpleNamespace(precision="bf16-encoder"))
    key = handle(cast("Any", model), "0123abcd")
    cache = EmbeddingCache(1 << 20, 60)

    async def made() -> Embedding:
        return Embedding(np.zeros((1, 1, 1), np.float32), Frame((30, 40), (768, 1024), 1024), {})

    await cache.get_or_make(key, made)
    images = Images(Settings(), cache, cast("Any", None), cast("Any", None))
    source = await images.look_at(Handle(key), [])
    assert source.cached == {f"{name}:bf16-encoder"}
    assert (source.size, source.digest) == ((40, 30), None)
