"""Every variant's graphs on ONNX Runtime and OpenVINO, against torch: reduced networks, and whole ones if asked for."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from parity.cases import Case, cases_of, image, valid
from parity.recording import parted, strays
from parity.weights import draw, draw_state
from samgate.compile.export import EXAMPLE_SIZES, export_graph, graph_module, load_network
from samgate.engines.embedded import Graph
from samgate.variants import get_variant
from samgate.variants.spec import GraphName, PaddingPoint, VariantSpec
from samgate.weights.formats import network_shapes
from variants_support import DECODERS, NETWORKS, OWN, STEPS

TOLERANCE = 1e-4
"""|Δ| / |torch's|: sums in another order."""
STRAYS = 0.05
"""See :func:`parity.recording.strays`; two in a hundred were found."""
RUNTIMES = ("onnxruntime", "openvino")


def _decoder_of(spec: VariantSpec) -> tuple[Any, ...]:
    """Variants that agree in this have the same decoder, drawn weights included."""
    shapes = {name: shape for name, shape in network_shapes(spec).items() if "image_encoder" not in name}
    return spec.graph_module, spec.graphs, spec.embedding_shape, tuple(sorted(shapes.items()))


def _networks() -> Iterator[Any]:
    for name in OWN:
        # Of the network that rounds, single layers are compared elsewhere: whole ones only tell that levels flip.
        marks = () if name in NETWORKS and not get_variant(name).rounds else pytest.mark.full
        yield pytest.param((name, True), id=f"{name}-small", marks=marks)
        yield pytest.param((name, False), id=name, marks=pytest.mark.full)


@dataclass
class Exported:
    """A variant's graphs, exported and loaded when they are asked for."""

    spec: VariantSpec
    folder: Path
    _network: Any = None
    _loaded: dict[tuple[str, GraphName], Graph] = field(default_factory=dict)

    def run(self, runtime: str, name: GraphName, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The graph's answer; decoders stay loaded."""
        module = importlib.import_module(f"samgate.engines.{runtime}")
        graph = self._loaded.get((runtime, name)) or module.load_graph(self.folder / f"{name}.onnx", "f32", 2)
        if name != "encoder":
            self._loaded[runtime, name] = graph
        return graph(inputs)

    def expected(self, name: GraphName, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """torch's answer. Afterwards the graph is there, and of an encoder, the network is no more: ViT-H's takes
        2.5 GB, and as much again each runtime's."""
        if self._network is None:
            self._network = load_network(self.spec, draw_state(network_shapes(self.spec)))
        with torch.inference_mode():
            found = graph_module(self.spec, self._network, name)(*map(torch.tensor, inputs.values()))
        file = self.folder / f"{name}.onnx"
        if not file.exists():
            export_graph(self.spec, self._network, name, file)
        if name == "encoder":
            self._network = None
        return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]


@pytest.fixture(scope="module", params=list(_networks()))
def exported(request: pytest.FixtureRequest) -> Iterator[Exported]:
    name, small = request.param
    spec = get_variant(name).reduced() if small else get_variant(name)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMGATE_HOME", f"{folder}/home")
        yield Exported(spec, Path(folder))


def agree(exported: Exported, name: GraphName, inputs: dict[str, NDArray[Any]]) -> None:
    expected = exported.expected(name, inputs)
    for runtime in RUNTIMES:
        for ours, theirs in zip(exported.run(runtime, name, inputs), expected, strict=True):
            assert ours.shape == theirs.shape
            bound = STEPS if exported.spec.rounds else TOLERANCE
            assert np.linalg.norm(ours - theirs) <= bound * np.linalg.norm(theirs), (name, runtime)


_seen: set[tuple[Any, ...]] = set()


def test_the_decoders_answer_as_torch_does(exported: Exported) -> None:
    spec = exported.spec
    decoder = _decoder_of(spec)
    if "decoder" not in spec.graphs or decoder in _seen:
        return  # another variant's, bit for bit, which has been here
    _seen.add(decoder)
    for case in cases_of(spec):
        agree(exported, "masked_decoder" if case.mask else "decoder", decoder_inputs(case))
    if "scores" in spec.graphs:
        # SegEvery's points have SAM's padding, whatever prompts have.
        asked = replace(spec, padding_point=PaddingPoint.WITHOUT_BOX)
        one = Case("scores", asked, images=1, prompts=3, points=1)
        agree(exported, "scores", decoder_inputs(one))


def test_the_encoder_answers_as_torch_does(exported: Exported) -> None:
    spec = exported.spec
    inputs: dict[str, NDArray[Any]] = {"image": image(spec), "valid": np.array([valid(spec)], np.int32)}
    if not spec.finds_everything:
        agree(exported, "encoder", inputs)
        return
    maps, detections = parted(exported.expected("encoder", inputs)[0])
    for runtime in RUNTIMES:
        found, found_detections = parted(exported.run(runtime, "encoder", inputs)[0])
        assert np.linalg.norm(found - maps) <= TOLERANCE * np.linalg.norm(maps), runtime
        assert strays(found_detections, detections) <= STRAYS, runtime


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in DECODERS else pytest.mark.full) for name in NETWORKS]
)
def test_a_batch_of_one_is_traced_as_any_other(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = get_variant(name).reduced()
    network = load_network(spec, draw_state(network_shapes(spec)))
    export_graph(spec, network, "encoder", tmp_path / "one.onnx")
    monkeypatch.setitem(EXAMPLE_SIZES, "N", 3)
    export_graph(spec, network, "encoder", tmp_path / "three.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "three.onnx").read_bytes()


def decoder_inputs(case: Case) -> dict[str, NDArray[Any]]:
    coords, labels = case.tokens()
    inputs: dict[str, NDArray[Any]] = {
        "image_embedding": case.embedding,
        "point_coords": coords,
        "point_labels": labels,
    }
    if case.mask:
        share = np.abs(draw("has", (case.images, case.prompts)))
        inputs |= {"mask_input": case.masks, "has_mask": (share > np.median(share)).astype(np.float32)}
    return inputs
