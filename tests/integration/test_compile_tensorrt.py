"""TensorRT-RTX compiles MobileSAM here, without a GPU; what it makes is installed whole, or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from samgate.compile.artifacts import Artifact, installed_artifact, installed_artifacts
from samgate.compile.graphs import ensure_graphs
from samgate.compile.pipeline import NOT_RUN, Request, compile_variant
from samgate.compile.report import tensorrt_page
from samgate.compile.targets import TARGETS
from samgate.compile.tensorrt import build_plan, known_capabilities, load_module
from samgate.compile.toolchain import find_toolchain
from samgate.errors import CompileError, InvalidArgument, NotInstalled
from samgate.variants.graphs import graph_specs
from samgate.variants.mobilesam import SPEC
from samgate.variants.spec import Island
from samgate.weights.home import sha256_file

RTX = TARGETS["tensorrt-rtx"]
MAGIC = b"vtrt"
"""How TensorRT-RTX's plans begin."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def artifact(installed: None, told: list[str], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    root = tmp_path_factory.mktemp("compiled")
    (made,) = compile_variant(Request(SPEC, RTX, "fp16", capabilities=["8.9"], root=root), told.append)
    return made


def test_every_graph_is_compiled_with_its_shapes(artifact: Artifact) -> None:
    manifest = artifact.manifest
    assert tuple(artifact.files) == tuple(manifest.graphs) == ("encoder", "decoder", "masked_decoder", "scores")
    for name, path in artifact.files.items():
        entry = manifest.graphs[name]
        content = path.read_bytes()
        assert path.name == f"{name}.plan"
        assert content[:4] == MAGIC
        assert (len(content), sha256_file(path)) == (entry.size, entry.sha256)
        # Half of f32's 37 and 40 MB is weights.
        assert 10e6 < entry.size < 32e6
        assert entry.layers is not None
        assert entry.layers > 500
        assert entry.f32_nodes is not None
        assert 25 < sum(entry.f32_nodes.values()) < entry.nodes / 5
    assert manifest.profiles["decoder"] == [
        {"I": [1, 1, 8], "P": [1, 1, 8], "K": [1, 2, 16]},
        {"I": [1, 1, 1], "P": [1, 64, 64], "K": [1, 2, 130]},
    ]
    assert manifest.profiles["encoder"] == [{"N": [1, 1, 8]}]
    assert manifest.profiles["masked_decoder"][0]["K"][0] == 0


def test_the_manifest_says_what_it_is_and_that_it_never_ran(artifact: Artifact, told: list[str]) -> None:
    manifest = artifact.manifest
    assert artifact.folder.name == "mobilesam-tensorrt-rtx-fp16-sm89"
    assert (manifest.variant, manifest.target, manifest.precision) == ("mobilesam", "tensorrt-rtx", "fp16")
    assert (manifest.library, manifest.compute_capability) == ("tensorrt_rtx", "8.9")
    assert manifest.version.count(".") == 3
    assert (manifest.gate, manifest.checked) == (None, NOT_RUN)
    assert set(manifest.islands) == {island.name for island in SPEC.islands}
    assert json.loads((artifact.folder / "manifest.json").read_text())["weights_sha256"] == manifest.weights_sha256
    assert "compiling encoder for compute capability 8.9" in told
    # Scratch folders are gone.
    assert sorted(path.name for path in artifact.folder.parent.iterdir() if path.is_dir()) == [artifact.folder.name]


def test_it_is_found_until_code_weights_or_files_change(artifact: Artifact, tmp_path: Path) -> None:
    shutil.copytree(artifact.folder, tmp_path / artifact.folder.name)
    assert installed_artifact(SPEC, "tensorrt-rtx", "fp16", "8.9", tmp_path).manifest == artifact.manifest

    island = Island("products", ("MatMul",), "another plan")
    with pytest.raises(NotInstalled, match="was compiled from other weights or code"):
        installed_artifact(replace(SPEC, islands=(*SPEC.islands, island)), "tensorrt-rtx", "fp16", "8.9", tmp_path)

    plan = tmp_path / artifact.folder.name / "scores.plan"
    plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    command = "samgate compile mobilesam --target tensorrt-rtx --precision fp16 --compute-capability 8.9"
    with pytest.raises(NotInstalled, match=f"is not compiled; compile it with: {command} --output {tmp_path}"):
        installed_artifact(SPEC, "tensorrt-rtx", "fp16", "8.9", tmp_path)


def test_what_is_not_there_is_named_with_its_command(installed: None, tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match=r"compile it with: samgate compile mobilesam --target tensorrt --precision"):
        installed_artifact(SPEC, "tensorrt", "fp16", "8.9", tmp_path)
    with pytest.raises(NotInstalled, match=r"--target openvino --precision int8 --calibrate DIR --eval instances.json"):
        installed_artifact(SPEC, "openvino", "int8", None, tmp_path)
    with pytest.raises(InvalidArgument, match="has to be named"):
        installed_artifact(SPEC, "tensorrt", "fp16", None, tmp_path)


def test_installed_artifacts_are_listed(artifact: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from samgate.weights.store import weights_path

    (tmp_path / "weights").mkdir()
    shutil.copy(weights_path(SPEC), tmp_path / "weights")
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path))
    assert installed_artifacts(SPEC, "tensorrt-rtx") == []
    shutil.copytree(artifact.folder, tmp_path / "compiled" / artifact.folder.name)
    assert [one.manifest for one in installed_artifacts(SPEC, "tensorrt-rtx")] == [artifact.manifest]
    assert installed_artifacts(SPEC, "tensorrt") == []


def test_the_page_has_a_row_for_each_graph_and_says_what_did_not_run(artifact: Artifact) -> None:
    page = tensorrt_page(SPEC, [artifact], "samgate compile …", "2025-01-01", "a CPU")
    for name, entry in artifact.manifest.graphs.items():
        assert f"| fp16 | 8.9 | `{name}` | {entry.size / 2**20:.1f} MiB |" in page
    assert "have never run" in page
    for island in artifact.manifest.graphs["encoder"].f32_nodes or ():
        assert f"| {island} | {(artifact.manifest.graphs['encoder'].f32_nodes or {})[island]} |" in page


def test_the_compilers_capabilities_are_asked_for() -> None:
    module = load_module("tensorrt_rtx")
    assert module is not None
    assert {"sm75", "sm80", "sm86", "sm89", "sm120"} <= known_capabilities(module).keys()
    with pytest.raises(InvalidArgument, match=r"'?9.0'? is none of 7.5, 8.0, 8.6, 8.9, 12.0"):
        find_toolchain(SPEC, RTX, "fp16", ["9.0"])


def test_a_graph_that_the_parser_refuses_is_an_error_with_its_words(installed: None, tmp_path: Path) -> None:
    module = load_module("tensorrt_rtx")
    assert module is not None
    model = onnx.load(ensure_graphs(SPEC)["scores"])
    # How many there are depends on values.
    model.graph.node.append(onnx.helper.make_node("NonZero", ["point_labels"], ["places"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("places", onnx.TensorProto.INT64, [3, None]))
    source = tmp_path / "source.onnx"
    onnx.save(model, source)
    with pytest.raises(CompileError, match=r"scores: TensorRT's parser refuses it: .*NonZero"):
        build_plan(module, graph_specs(SPEC)["scores"], source, tmp_path / "plan", "8.9", tmp_path / "timings")
    assert [path.name for path in tmp_path.iterdir()] == ["source.onnx"]


def test_a_graph_that_cannot_be_built_is_an_error(installed: None, tmp_path: Path) -> None:
    module = load_module("tensorrt_rtx")
    assert module is not None
    # It is of one image, and the decoder's profiles are of up to eight.
    source = ensure_graphs(SPEC)["scores"]
    with pytest.raises(CompileError, match=r"decoder: TensorRT .*image_embedding"):
        build_plan(module, graph_specs(SPEC)["decoder"], source, tmp_path / "plan", "8.9", tmp_path / "timings")
    assert not list(tmp_path.iterdir())
