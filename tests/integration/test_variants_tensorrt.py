"""TensorRT for RTX compiles variants and text models in fp16 with their islands: reduced, and whole if asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parity.measure import CAPABILITIES, stored
from parity.weights import draw_state
from samgate.compile.export import export_graph, load_network
from samgate.compile.prepare import prepare
from samgate.compile.targets import TARGETS
from samgate.compile.tensorrt import build_plan, load_module
from samgate.errors import CompileError
from samgate.variants import VARIANTS, get_variant
from samgate.variants.clip import TEXT_MODELS
from samgate.variants.graphs import graph_specs
from samgate.variants.spec import TEXT_GRAPHS, GraphName, NetworkSpec
from samgate.weights.formats import network_shapes
from variants_support import DECODERS, NETWORKS, OWN

MAGIC = b"vtrt"
USUAL = "8.9"
"""What whole networks are compiled for, and by default everything."""

pytestmark = pytest.mark.timeout(900)


def _builds() -> Iterator[Any]:
    for name in OWN:
        graphs: list[GraphName] = ["encoder"] if "decoder" not in VARIANTS[name].graphs else ["encoder", "decoder"]
        for graph in graphs:
            if name in (NETWORKS if graph == "encoder" else DECODERS):
                for capability in CAPABILITIES:
                    # Of every kind of graphs the encoder, which take seconds each.
                    default = graph == "encoder" and name in DECODERS and capability == USUAL
                    marks = () if default else pytest.mark.full
                    label = f"{name}-small-{graph}-{capability}"
                    yield pytest.param(name, graph, True, capability, id=label, marks=marks)
            if VARIANTS[name].small:
                yield pytest.param(name, graph, False, USUAL, id=f"{name}-{graph}", marks=pytest.mark.full)
    for name in TEXT_MODELS:
        for graph in TEXT_GRAPHS:
            for capability in CAPABILITIES:
                marks = () if capability == USUAL else pytest.mark.full
                yield pytest.param(name, graph, True, capability, id=f"{name}-small-{graph}-{capability}", marks=marks)
            yield pytest.param(name, graph, False, USUAL, id=f"{name}-{graph}", marks=pytest.mark.full)


@pytest.mark.parametrize(("name", "graph", "small", "capability"), list(_builds()))
def test_it_compiles_with_the_islands_in_f32(
    name: str, graph: GraphName, small: bool, capability: str, tmp_path: Path
) -> None:
    whole: NetworkSpec = TEXT_MODELS.get(name) or get_variant(name)
    spec = whole.reduced() if small else whole
    module = load_module("tensorrt_rtx")
    assert module is not None
    network = load_network(spec, draw_state(network_shapes(spec)))
    source, prepared = tmp_path / f"{graph}.onnx", tmp_path / "prepared"
    prepared.mkdir()
    export_graph(spec, network, graph, source)
    del network
    plan = spec.precisions["fp16"]
    one = prepare(spec, TARGETS["tensorrt-rtx"], plan, graph, source, prepared, (), lambda line: None)
    file = tmp_path / "plan"
    if "refused" in stored()[name]["tensorrt"][capability][graph]:  # as docs/variants.md says
        with pytest.raises(CompileError, match="FP32 GEMM is not supported"):
            build_plan(module, graph_specs(spec)[graph], one.path, file, capability, tmp_path / "timings")
        return
    built = build_plan(module, graph_specs(spec)[graph], one.path, file, capability, tmp_path / "timings")
    with file.open("rb") as written:
        assert written.read(len(MAGIC)) == MAGIC
    assert built.layers > 20
    low = plan.encoder if graph == "encoder" else plan.decoder
    if low == "fp16":
        assert 0 < sum(one.typing.f32_nodes.values()) < one.typing.nodes
