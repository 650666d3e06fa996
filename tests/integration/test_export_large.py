"""Graphs whose weights are in a file of their own: the same answers, wherever they go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from parity.cases import image, valid
from parity.weights import draw_state
from samgate.compile import export, external
from samgate.compile import graphs as graphs_module
from samgate.compile.external import copy_graph, data_file, graph_sha256, graph_size, link_graph
from samgate.compile.graphs import ensure_graphs
from samgate.compile.prepare import prepare
from samgate.compile.targets import TARGETS
from samgate.compile.tensorrt import build_plan, load_module
from samgate.engines import onnxruntime, openvino
from samgate.errors import WeightsError
from samgate.variants import get_variant
from samgate.variants.graphs import graph_specs
from samgate.weights import store
from samgate.weights.formats import network_shapes
from samgate.weights.home import sha256_file

SPEC = get_variant("sam-vit-h").reduced()


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same encoder with its weights in it, and beside it."""
    folder = tmp_path_factory.mktemp("graphs")
    network = export.load_network(SPEC, draw_state(network_shapes(SPEC)))
    inside, beside = folder / "inside" / "encoder.onnx", folder / "beside" / "encoder.onnx"
    for path in (inside, beside):
        path.parent.mkdir()
    export.export_graph(SPEC, network, "encoder", inside)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "LARGE", 1)
        patch.setattr(external, "_SMALL", 1)
        export.export_graph(SPEC, network, "encoder", beside)
    return inside, beside


def test_it_answers_as_the_graph_with_its_weights_inside(
    graphs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path / "home"))
    inside, beside = graphs
    assert data_file(beside).stat().st_size > 0.9 * inside.stat().st_size > 10 * beside.stat().st_size
    copied, linked = tmp_path / "copied" / "encoder.onnx", tmp_path / "linked" / "model.onnx"
    for path in (copied, linked):
        path.parent.mkdir()
    copy_graph(beside, copied)
    link_graph(beside, linked)
    inputs: dict[str, NDArray[Any]] = {"image": image(SPEC), "valid": np.array([valid(SPEC)], np.int32)}
    (expected,) = onnxruntime.load_graph(inside, "f32", 2)(inputs)
    for runtime, path in ((onnxruntime, copied), (openvino, copied), (openvino, linked)):
        (found,) = runtime.load_graph(path, "f32", 2)(inputs)
        assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
        kept = list((tmp_path / "home" / "blobs").glob("*.blob"))
        assert path is linked or not kept, "gigabytes, twice in memory"


def test_the_graph_alone_tells_weights_apart(graphs: tuple[Path, Path]) -> None:
    model = onnx.load(graphs[1], load_external_data=False)
    far = [tensor for tensor in model.graph.initializer if tensor.external_data]
    assert len(far) > 10
    assert all({entry.key for entry in tensor.external_data} >= {"checksum", "location"} for tensor in far)


def test_size_and_checksum_count_both_files(graphs: tuple[Path, Path], tmp_path: Path) -> None:
    copied = tmp_path / "encoder.onnx"
    copy_graph(graphs[1], copied)
    assert graph_size(copied) == copied.stat().st_size + data_file(copied).stat().st_size
    assert graph_sha256(graphs[0]) == sha256_file(graphs[0])
    before = graph_sha256(copied)
    assert before == graph_sha256(graphs[1]) != sha256_file(copied)
    with data_file(copied).open("r+b") as file:
        (first,) = file.read(1)
        file.seek(0)
        file.write(bytes([first ^ 1]))
    assert graph_sha256(copied) != before


def test_in_low_arithmetic_it_has_its_weights_inside_again(graphs: tuple[Path, Path], tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    rtx = TARGETS["tensorrt-rtx"]
    one = prepare(SPEC, rtx, SPEC.precisions["fp16"], "encoder", graphs[1], prepared, (), lambda line: None)
    assert [path.name for path in prepared.iterdir()] == ["encoder.onnx"]
    module = load_module("tensorrt_rtx")
    assert module is not None
    plan = tmp_path / "plan"
    build_plan(module, graph_specs(SPEC)["encoder"], one.path, plan, "8.9", tmp_path / "timings")
    assert plan.stat().st_size > 100_000


HEAP = """
import numpy as np
from samgate.compile import graphs

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith("RssAnon"))

graphs._keep_heap_whole()
np.ones(2**24, np.uint8)  # freed: by itself glibc would take its like from the heap from now on
before = anonymous()
blocks = [np.ones(2**24, np.uint8) for _ in range(20)]
del blocks[:-1]
print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_what_a_large_export_frees_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 64, "MiB that stay of 20 blocks of 16 MiB, of which one is kept"


@pytest.mark.parametrize("large", [True, False])
def test_the_heap_is_kept_whole_for_large_weights(large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path))
    weights = {"some": np.zeros(2**10, np.float32)}
    size = store.save(SPEC, weights, store.Origin(SPEC.name, "drawn", {})).path.stat().st_size
    monkeypatch.setattr(graphs_module, "LARGE", size if large else size + 1)
    kept: list[bool] = []
    monkeypatch.setattr(graphs_module, "_keep_heap_whole", lambda: kept.append(True))
    with pytest.raises(WeightsError, match="these are not the weights of sam-vit-h"):
        ensure_graphs(SPEC)
    assert kept == [True] * large
