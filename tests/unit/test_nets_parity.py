"""The networks against what upstream's own code answered with the same drawn weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from parity.cases import CASES, EMBEDDING_STRIDE, IMAGE_SIZE, MASK_STRIDE, VALID, Case, image
from parity.weights import draw_state
from samgate.compile.export import load_network
from samgate.variants.mobilesam import SPEC
from samgate.variants.nets.sam import DecoderGraph, EncoderGraph, MaskedDecoderGraph, Sam

GOLDEN = Path(__file__).resolve().parents[1] / "parity" / "golden"
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden() -> Mapping[str, NDArray[Any]]:
    with np.load(GOLDEN / "mobilesam.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in json.loads((GOLDEN / "mobilesam_state.json").read_text()).items()}


@pytest.fixture(scope="module")
def network(shapes: dict[str, tuple[int, ...]]) -> Sam:
    return load_network(SPEC, draw_state(shapes))


def test_the_state_dict_has_upstreams_names_and_shapes(network: Sam, shapes: dict[str, tuple[int, ...]]) -> None:
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == shapes


@torch.inference_mode()
def test_the_image_embedding_is_upstreams(network: Sam, golden: Mapping[str, NDArray[Any]]) -> None:
    graph = EncoderGraph(network, IMAGE_SIZE, SPEC.pixel_mean, SPEC.pixel_std)
    embedding = graph(torch.tensor(image()), torch.tensor([VALID], dtype=torch.int32))
    assert embedding.shape == (1, *SPEC.embedding_shape)
    assert difference(embedding.numpy().ravel()[::EMBEDDING_STRIDE], golden["embedding"]) <= TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@torch.inference_mode()
def test_masks_and_predicted_ious_are_upstreams(case: Case, network: Sam, golden: Mapping[str, NDArray[Any]]) -> None:
    masks, ious = decode(network, case)
    assert masks.shape == (case.images, case.prompts, 4, SPEC.low_res_size, SPEC.low_res_size)
    assert difference(masks.ravel()[::MASK_STRIDE], golden[f"{case.name}/masks"]) <= TOLERANCE
    assert difference(ious, golden[f"{case.name}/ious"]) <= TOLERANCE


@torch.inference_mode()
def test_without_a_mask_the_masked_decoder_answers_as_the_plain_one(network: Sam) -> None:
    case = Case("mixed", images=1, prompts=2, points=1)
    plain, _ = decode(network, case)
    coords, labels = case.tokens()
    has_mask = np.array([[0, 1]], np.float32)
    inputs = (case.embedding, coords, labels, case.masks, has_mask)
    mixed, _ = (output.numpy() for output in MaskedDecoderGraph(network)(*map(torch.tensor, inputs)))
    assert difference(mixed[:, 0], plain[:, 0]) <= TOLERANCE
    assert difference(mixed[:, 1], plain[:, 1]) > 1e-2


def decode(network: Sam, case: Case) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    inputs: list[NDArray[Any]] = [case.embedding, *case.tokens()]
    graph = DecoderGraph(network)
    if case.mask:
        graph = MaskedDecoderGraph(network)
        inputs += [case.masks, np.ones((case.images, case.prompts), np.float32)]
    masks, ious = graph(*map(torch.tensor, inputs))
    return masks.numpy(), ious.numpy()


def difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
