"""The engine ``torch``: the same answers as from OpenVINO, through the gateway and alone, compiled or not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from samgate.api.local import local_gateway
from samgate.client import Client
from samgate.config import EngineSettings, Settings
from samgate.domain import FloatArray
from samgate.engines.base import Engine, Images, Prompts
from samgate.engines.load import load_engine
from samgate.errors import InvalidArgument
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec
from variants_support import picture, reduced

NAME = "mobilesam"
COORDS = np.array([[[[100, 80], [0, 0]], [[300, 200], [0, 0]]]], np.float32)
LABELS = np.array([[[1, -1], [1, -1]]], np.int32)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VariantSpec]:
    with reduced([NAME], tmp_path_factory.mktemp("home")) as (one,):
        yield one


def answer(engine: Engine, spec: VariantSpec) -> tuple[FloatArray, FloatArray, FloatArray]:
    """An embedding, and masks and IoUs of prompts on it."""

    async def ask() -> tuple[FloatArray, FloatArray, FloatArray]:
        square = picture(spec.input_size, spec.input_size)
        images = Images(square[None], np.array([[600, spec.input_size]], np.int32))
        (embedding,) = await engine.encode(images, float("inf"))
        decoded = await engine.decode([embedding], Prompts(COORDS, LABELS), float("inf"))
        await engine.close()
        return embedding, decoded.low_res_masks, decoded.iou_predictions

    return asyncio.run(ask())


def load(spec: VariantSpec, name: str, precision: str = "f32", compile: str = "off") -> Engine:  # noqa: A002
    return load_engine(spec, Settings(engine=EngineSettings(name=name, precision=precision, compile=compile)))


@pytest.mark.parametrize(
    ("precision", "compiling", "tolerance"),
    [
        pytest.param("f32", "off", 1e-4, id="f32"),
        # bf16 has eight bits; means over many rounded products stay below a twentieth.
        pytest.param("bf16", "off", 0.05, id="bf16"),
        pytest.param("f32", "on", 1e-4, id="compiled", marks=pytest.mark.full),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's compiler, of its own
def test_answers_are_openvinos(spec: VariantSpec, precision: str, compiling: str, tolerance: float) -> None:
    expected = answer(load(spec, "openvino"), spec)
    for ours, theirs in zip(answer(load(spec, "torch", precision, compiling), spec), expected, strict=True):
        assert ours.dtype == np.float32
        assert np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs)


def test_the_gateway_serves_on_it(spec: VariantSpec) -> None:
    settings = Settings(engine=EngineSettings(name="torch", precision="f32"), variants=spec.name)
    image = picture(240, 360)
    with local_gateway(settings) as target, Client(target, timeout_s=120) as client:
        assert len(client.segment(image, points=[[100, 80]], labels=[1], selection="multi").masks) == 3
        found = client.everything(image, points_per_side=3, pred_iou_thresh=0, stability_score_thresh=0)
        assert found.masks


def test_what_it_does_not_know_is_refused(spec: VariantSpec) -> None:
    with pytest.raises(InvalidArgument, match=r"engine.compile.*'soon' is none of auto, off, on"):
        load(spec, "torch", compile="soon")
    with pytest.raises(InvalidArgument, match="'int8' is not for torch"):
        load(spec, "torch", "int8")


def test_samfast_runs_on_it_alone(tmp_path: Path) -> None:
    with reduced(["sam-vit-b"], tmp_path):
        fast = get_variant("samfast-vit-b").reduced()
        with pytest.raises(InvalidArgument, match=r"engine.name.*samfast-vit-b runs on torch alone, not on 'openvino'"):
            load(fast, "openvino")
        with pytest.raises(InvalidArgument, match="not on 'triton'"):
            load(fast, "triton")
        plain = answer(load(get_variant("sam-vit-b"), "openvino"), fast)
        for ours, theirs in zip(answer(load(fast, "torch"), fast), plain, strict=True):
            assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)
