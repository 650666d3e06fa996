"""CLIP's network against what upstream's own code answered with the same drawn weights, reduced and whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from parity.recording import Golden, read, shapes_in
from parity.upstream.clip import golden_file, images, tokens
from parity.weights import draw_state
from samgate.compile.export import export_graph, graph_module, load_network
from samgate.engines import onnxruntime, openvino
from samgate.variants.clip import VIT_B_32, ClipSpec
from samgate.variants.graphs import graph_specs
from samgate.variants.spec import TEXT_GRAPHS, GraphName
from samgate.weights.formats import network_shapes

TOLERANCE = 1e-4
"""|Δ| / |upstream's|; what is found is a hundredth of that."""
ALIKE = 0.95
"""Cosine below which features of two inputs are, so that each tells something."""
PARAMETERS = 151_277_313


@dataclass(frozen=True)
class Network:
    spec: ClipSpec
    net: Any
    golden: Golden

    def inputs(self, name: str) -> NDArray[Any]:
        return images(self.spec) if name == "image_features" else tokens(self.spec)

    @torch.inference_mode()
    def answer(self, name: GraphName, inputs: NDArray[Any]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = graph_module(self.spec, self.net, name)(torch.tensor(inputs)).numpy()
        return found


def network_of(small: bool) -> Network:
    spec, golden = VIT_B_32.reduced() if small else VIT_B_32, read(golden_file(small))
    return Network(spec, load_network(spec, draw_state(shapes_in(golden))), golden)


@pytest.fixture(scope="module")
def network() -> Network:
    return network_of(small=True)


def check(network: Network) -> None:
    for name in TEXT_GRAPHS:
        theirs = network.golden[name]
        assert np.triu(theirs @ theirs.T, 1).max() < ALIKE, name
        ours = network.answer(name, network.inputs(name))
        assert ours.shape == theirs.shape
        # Of each alone: all have the length 1.
        assert np.linalg.norm(ours - theirs, axis=1).max() <= TOLERANCE, name


@pytest.mark.parametrize("small", [True, False])
def test_names_and_shapes_are_upstreams(small: bool) -> None:
    spec = VIT_B_32.reduced() if small else VIT_B_32
    shapes = shapes_in(read(golden_file(small)))
    assert dict(network_shapes(spec)) == shapes
    if not small:
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == PARAMETERS
        assert spec.parameters == pytest.approx(PARAMETERS, rel=0.01)


def test_features_are_upstreams(network: Network) -> None:
    check(network)


def test_features_of_the_whole_network_are_upstreams() -> None:
    check(network_of(small=False))


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", TEXT_GRAPHS)
def test_graphs_answer_any_number_the_same(
    name: GraphName, small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path / "home"))
    network, path = network_of(small), tmp_path / f"{name}.onnx"
    export_graph(network.spec, network.net, name, path)
    runtimes = [runtime.load_graph(path, "f32", 2) for runtime in (onnxruntime, openvino)]
    inputs, theirs = network.inputs(name), network.golden[name]
    (tensor,) = (one.name for one in graph_specs(network.spec)[name].inputs)
    for count in (1, 3):
        given = inputs[:count]
        for found in (network.answer(name, given), *(run({tensor: given})[0] for run in runtimes)):
            assert found.shape == (count, network.spec.width)
            assert np.linalg.norm(found - theirs[:count], axis=1).max() <= TOLERANCE
            assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(count), abs=1e-5)


def test_what_follows_the_end_of_a_text_does_not_matter(network: Network) -> None:
    rows = tokens(network.spec)
    for row in rows:
        row[row.argmax() + 1 :] = 7
    assert np.abs(network.answer("text_features", rows) - network.golden["text_features"]).max() <= TOLERANCE
