"""Text models in this process and in front of Triton, where something is amiss."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samgate.config import EngineSettings, Settings
from samgate.engines.text import EmbeddedTextModel, load_text_model
from samgate.engines.triton.discovery import Directory
from samgate.engines.triton.servers import Patience, Servers
from samgate.engines.triton.text import TritonTextModel
from samgate.errors import CompileError, NotInstalled, Unavailable
from samgate.text import tokens
from samgate.variants.clip import VIT_B_32, get_text_model
from samgate.variants.spec import TEXT_GRAPHS
from weights_support import home

__all__ = ["home"]
CROPS = np.zeros((2, 224, 224, 3), np.uint8)
TOKENS = np.zeros((3, 77), np.int32)
NOWHERE = "127.0.0.1:1"


def graph(inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    (array,) = inputs.values()
    return [np.full((len(array), VIT_B_32.width), len(array), np.float32)]


def broken(inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    raise RuntimeError("no memory")


def embedded() -> EmbeddedTextModel:
    return EmbeddedTextModel("test", VIT_B_32, dict.fromkeys(TEXT_GRAPHS, graph))


def soon() -> float:
    return time.monotonic() + 5


async def test_a_model_that_is_closed_or_broken_says_so() -> None:
    model = embedded()
    assert (await model.image_features(CROPS, soon())).shape == (2, 512)
    assert (await model.text_features(TOKENS, soon())).shape == (3, 512)
    assert await model.healthy()
    await model.close()
    assert not await model.healthy()
    with pytest.raises(Unavailable, match="clip-vit-b-32 is closed"):
        await model.text_features(TOKENS, soon())
    model = EmbeddedTextModel("test", VIT_B_32, {"image_features": graph, "text_features": broken})
    with pytest.raises(Unavailable, match="test could not run clip-vit-b-32: no memory"):
        await model.text_features(TOKENS, soon())
    await model.close()


@pytest.mark.parametrize("fallback", [True, False])
async def test_without_a_server_the_fallback_answers(fallback: bool) -> None:
    servers = Servers([NOWHERE], Directory([NOWHERE], lambda url: None), 2**20, Patience(1.0, 0.1))
    model = TritonTextModel(VIT_B_32, servers, embedded() if fallback else None)
    try:
        if fallback:
            assert (await model.image_features(CROPS, soon())).tolist() == [[2.0] * 512] * 2
            assert (await model.text_features(TOKENS, soon())).tolist() == [[3.0] * 512] * 3
            assert await model.healthy()
        else:
            with pytest.raises(Unavailable):
                await model.image_features(CROPS, soon())
    finally:
        await model.close()
    assert not await model.healthy()


@pytest.mark.usefixtures("home")
def test_what_is_missing_is_told_before_anything_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(engine=EngineSettings(name="openvino"))
    with pytest.raises(NotInstalled, match="samgate pull clip-vit-b-32"):
        load_text_model(get_text_model("clip-vit-b-32"), settings)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tokens.load_tokenizer.cache_clear()
    with pytest.raises(CompileError, match=r"pip install 'samgate\[text\]'"):
        load_text_model(VIT_B_32, settings)
    with pytest.raises(Exception, match="text model 'blip' is unknown; known: clip-vit-b-32"):
        get_text_model("blip")
